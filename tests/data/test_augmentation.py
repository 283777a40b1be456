import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msseg_jax.configuration.files import shipped, typed
from msseg_jax.configuration.sections import AugmentationSettings, PreprocessingSettings
from msseg_jax.data.augmentation import Augmentation, cut_augmented, draw_augmentation
from msseg_jax.data.augmentation.appearance import Appearance
from msseg_jax.data.augmentation.smooth import spline_field
from msseg_jax.data.augmentation.spatial import Spatial, cut_deformed
from msseg_jax.data.cache import CachedPatient
from msseg_jax.data.loader import PatchBatches, Places, Sampling, Share, load_batches
from msseg_jax.data.packing import pack_images, pack_targets, unpack_target
from msseg_jax.data.patches import crop, draw_corner
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import prepare
from msseg_jax.system.errors import InputError

SETTINGS = typed(shipped("msseg2_augmented")).augmentation
PROBABILITIES = [name for name, _ in SETTINGS if name.endswith("_probability")]


def with_probability(probability: float) -> AugmentationSettings:
    every = dict.fromkeys(PROBABILITIES, probability)
    return SETTINGS.model_copy(update=every | {"flip_probability": (probability,) * 3})


ALWAYS, NEVER = with_probability(1.0), with_probability(0.0)


@pytest.fixture(scope="module")
def patient() -> CachedPatient:
    """Make a patient with a textured, ball-shaped brain and a new lesion of 5^3 voxels."""
    generator = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, 48)] * 3, indexing="ij")
    brain = sum(axis**2 for axis in axes) < 1
    lesion = np.zeros((48,) * 3, bool)
    lesion[20:25, 14:19, 30:35] = True
    images = generator.normal(size=(2, 48, 48, 48)) * brain
    targets = pack_targets(np.stack([lesion, lesion]))
    return CachedPatient(
        "made", pack_images(images), targets, brain, np.argwhere(lesion), np.eye(4),
        np.ones(2, bool), np.array([lesion.sum()]),
    )  # fmt: skip


@pytest.fixture
def entries(patients_root, tmp_path):
    settings = PreprocessingSettings(spacing_mm=1.0, percentiles=(1, 50, 99), patch_size=8)
    return prepare(patients_root, 2, settings, HoldOut(0), tmp_path / "cache").training


def batches_of(entries, settings, seed=0) -> PatchBatches:
    return PatchBatches(Places(entries, Sampling(seed, 8, 0.8, settings)), Share(8), steps=4)


def assert_same_batches(one, other):
    for a, b in zip(one, other, strict=True):
        for field in a:
            np.testing.assert_array_equal(a[field], b[field])


# ------------------------------------------------------------------------------------ drawing


def test_a_draw_depends_only_on_seed_and_patch():
    def draws(seed, order):
        return {k: repr(draw_augmentation(ALWAYS, seed, k)) for k in order}

    first = draws(0, range(20))
    assert first == draws(0, reversed(range(20)))
    assert len(set(first.values())) == 20
    assert not set(first.values()) & set(draws(1, range(20)).values())


def test_misregistration_covers_its_range_of_one_voxel_and_one_degree():
    drawn = [draw_augmentation(ALWAYS, 0, k).spatial.misregistration for k in range(500)]
    lengths = np.array([np.linalg.norm(m.shift_voxels) for m in drawn])
    angles = np.degrees([Rotation.from_matrix(m.rotation).magnitude() for m in drawn])
    for values in (lengths, angles):
        assert values.max() <= 1 + 1e-9
        assert values.max() > 0.95
        assert values.mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(np.mean([m.shift_voxels for m in drawn], axis=0), 0, atol=0.06)


def test_every_transform_is_drawn_up_to_its_limit_and_not_beyond():
    spatial, visits = [], []
    for k in range(500):
        drawn = draw_augmentation(ALWAYS, 0, k)
        spatial.append(drawn.spatial)
        visits.extend(drawn.appearances)
    lengths = np.array([np.linalg.norm(s.matrix, axis=0) for s in spatial])  # three scale factors
    elastic = [np.abs(s.displacement).max() for s in spatial]
    assert spatial[0].displacement.shape == (3, 7, 7, 7)
    turns = [s.matrix / size for s, size in zip(spatial, lengths, strict=True)]
    degrees = np.degrees([Rotation.from_matrix(turn).magnitude() for turn in turns])
    biases = np.exp([np.abs(v.bias).max() for v in visits])
    for values, low, high in (
        (lengths, 1 / 1.1, 1.1),
        (degrees, 0, 10),
        ([v.gamma for v in visits], 1 / 1.2, 1.2),
        ([v.gain for v in visits], 1 / 1.1, 1.1),
        ([v.blur_voxels for v in visits], 0, 1),
        ([v.slice_voxels for v in visits], 1, 4),
        ([v.slice_phase for v in visits], 0, 1),
        ([v.noise for v in visits], 0, SETTINGS.noise),
    ):
        margin = 0.02 * (high - low)
        assert low - 1e-6 <= np.min(values) <= low + margin
        assert high - margin <= np.max(values) <= high + 1e-6
    for values, limit in ((elastic, 0.2), (biases, 1.3)):  # the maxima of many values
        assert np.min(values) > 0.95 * limit
        assert np.max(values) <= limit + 1e-6


def test_displacement_reaches_six_tenths_of_its_limit_and_log_bias_a_third():
    drawn = [draw_augmentation(ALWAYS, 0, k) for k in range(100)]
    moves = [spline_field(d.spatial.displacement, 56) for d in drawn]
    biases = [spline_field(d.appearances[0].bias, 56) for d in drawn]
    for fields_of_patches, limit, share in ((moves, 0.2, 0.6), (biases, np.log(1.3), 1 / 3)):
        largest = [np.abs(field).max() / limit for field in fields_of_patches]
        assert np.median(largest) == pytest.approx(share, abs=0.05)
        assert np.max(largest) <= 1


def test_the_visits_share_only_the_axis_of_the_slices():
    axes = set()
    for k in range(30):
        time01, time02 = draw_augmentation(ALWAYS, 0, k).appearances
        assert time01.slice_axis == time02.slice_axis
        axes.add(time01.slice_axis)
        assert time01.gamma != time02.gamma
        assert time01.slice_voxels != time02.slice_voxels
        assert time01.noise_seed != time02.noise_seed
    assert axes == {0, 1, 2}


def test_each_change_is_drawn_with_its_probability():
    flips = {"flip_probability": (0.0, 0.25, 1.0)}
    settings = with_probability(0.25).model_copy(update=flips)
    drawn = [draw_augmentation(settings, 0, k) for k in range(1500)]
    flips = np.mean([d.spatial.flips for d in drawn], axis=0)
    np.testing.assert_allclose(flips, [0, 0.25, 1], atol=0.04)
    spatial = [d.spatial for d in drawn]
    visits = [a for d in drawn for a in d.appearances]
    for happened in (
        [s.matrix is not None for s in spatial],
        [s.displacement is not None for s in spatial],
        [s.misregistration is not None for s in spatial],
        [v.gamma != 1 for v in visits],
        [v.gain != 1 for v in visits],
        [v.bias is not None for v in visits],
        [v.blur_voxels > 0 for v in visits],
        [v.slice_voxels > 1 for v in visits],
        [v.noise > 0 for v in visits],
    ):
        assert np.mean(happened) == pytest.approx(0.25, abs=0.04)


# ------------------------------------------------------------------------------------ applying


@pytest.mark.parametrize("corner", [(16, 10, 20), (-6, 30, 40)])
def test_without_changes_a_patch_is_the_plain_crop(patient, corner):
    images, targets = cut_augmented(patient, corner, 16, draw_augmentation(NEVER, 0, 0))
    np.testing.assert_array_equal(images, crop(patient.images, corner, (16,) * 3, 0))
    np.testing.assert_array_equal(targets, crop(patient.targets, corner, (16,) * 3, 0))
    assert images.dtype == np.int16
    assert targets.dtype == np.uint8


@pytest.mark.parametrize("visit", [0, 1])
def test_a_change_to_one_visit_does_not_affect_the_other(patient, visit):
    appearances = [Appearance(), Appearance()]
    appearances[visit] = Appearance(gain=1.1)
    drawn = Augmentation(Spatial(), tuple(appearances))
    images, _ = cut_augmented(patient, (16, 10, 20), 16, drawn)
    plain = crop(patient.images, (16, 10, 20), (16,) * 3, 0)
    np.testing.assert_array_equal(images[1 - visit], plain[1 - visit])
    assert (images[visit] != plain[visit]).mean() > 0.5


def test_equal_draws_give_equal_bytes_and_different_draws_do_not(patient):
    def cut(k):
        return cut_augmented(patient, (16, 10, 20), 16, draw_augmentation(ALWAYS, 0, k))[0]

    np.testing.assert_array_equal(cut(1), cut(1))
    assert (cut(1) != cut(2)).mean() > 0.9


def test_the_background_does_not_change(patient):
    for k in range(10):
        drawn = draw_augmentation(ALWAYS, 0, k)
        corner = (-4, 8, 30)
        images, _ = cut_augmented(patient, corner, 16, drawn)
        _, _, brain = cut_deformed(patient, corner, 16, drawn.spatial)
        assert 0.1 < brain.mean() < 0.9
        assert (images[:, ~brain] == 0).all()
        assert (images[:, brain] != 0).mean() > 0.95


def test_a_patch_drawn_around_a_lesion_nearly_always_shows_it(patient):
    size, shows = 24, []
    for k in range(150):
        corner = draw_corner(0, k, size, patient.lesion_kinds, patient.brain, 1.0)
        _, targets = cut_augmented(patient, corner, size, draw_augmentation(ALWAYS, 0, k))
        np.testing.assert_array_equal(unpack_target(targets, 0), unpack_target(targets, 1))
        shows.append(unpack_target(targets, 0).any())
    assert np.mean(shows) > 0.95


# ------------------------------------------------------------------------------------ loading


def test_the_loader_augments_each_patch_separately(entries):
    source = batches_of(entries, ALWAYS)
    places = Places(entries, Sampling(0, 8, 0.8))
    batch = source[1]
    assert batch["images"].dtype == np.int16
    for k, patch_id in enumerate(batch["patch_ids"].tolist()):
        number, corner = places.of(patch_id)
        drawn = draw_augmentation(ALWAYS, 0, patch_id)
        images, targets = cut_augmented(places.patient(number), corner, 8, drawn)
        np.testing.assert_array_equal(batch["images"][k], images)
        np.testing.assert_array_equal(batch["targets"][k], targets)


def test_with_zero_probabilities_the_batches_are_not_augmented(entries):
    plain, never = batches_of(entries, None), batches_of(entries, NEVER)
    assert_same_batches([plain[step] for step in range(4)], [never[step] for step in range(4)])
    assert (plain[0]["images"] != batches_of(entries, ALWAYS)[0]["images"]).mean() > 0.5


def test_augmented_batches_do_not_depend_on_the_threads_or_the_first_step(entries):
    source = batches_of(entries, ALWAYS)
    whole = list(load_batches(source, 0, threads=1))
    assert_same_batches(whole, list(load_batches(source, 0, threads=4)))
    assert_same_batches(whole[2:], list(load_batches(source, 2, threads=3)))


# ------------------------------------------------------------------------------------ configuration


def test_augmentation_is_off_in_msseg2_and_on_in_msseg2_augmented():
    assert not typed(shipped("msseg2")).augmentation.enabled
    augmented = shipped("msseg2_augmented")
    assert augmented.augmentation.enabled
    augmented.augmentation.enabled = False
    assert augmented.to_dict() == shipped("msseg2").to_dict()


def test_stored_settings_are_read_back_unchanged():
    stored = AugmentationSettings.of(SETTINGS.model_dump(mode="json"), "config.augmentation")
    assert stored == SETTINGS


def test_augmented_patches_cannot_be_cut_on_the_device():
    config = shipped("msseg2_augmented")
    config.data.device_resident = True
    with pytest.raises(InputError, match=r"augmentation.enabled is True.*device_resident"):
        typed(config)
    config.augmentation.enabled = False
    typed(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip_probability", (0.5, 1.5, 0.0), "is 1.5; expected at most 1"),
        ("flip_probability", (0.5, 0.5), "flip_probability.2. is missing"),
        ("noise_probability", -0.1, "0 to 1"),
        ("scale", -0.1, "0 to 1"),
        ("scale", 1.5, "0 to 1"),
        ("misregistration_voxels", 56.5, r"at most 56, .*\(config.data.patch_size\)"),
        ("misregistration_degrees", 181.0, "0 to 180"),
        ("gamma", 10.5, "0 to 10"),
        ("gain", float("inf"), "a finite number"),
        ("bias", 10.5, "0 to 10"),
        ("bias", float("nan"), "a finite number"),
        ("blur_voxels", 56.5, r"at most 56, .*\(config.data.patch_size\)"),
        ("noise", 10.5, "0 to 10"),
        ("rotation_degrees", 200.0, "0 to 180"),
        ("elastic", 0.5, "0 to 0.4"),
        ("elastic_cells", 0, "1 or more"),
        ("elastic_cells", 57, "at most 56"),
        ("bias_cells", 0, "1 or more"),
        ("bias_cells", 57, "at most 56"),
        ("zero_signal", 0.0, "less than 0"),
        ("zero_signal", -101.0, "-100 or more"),
        ("slice_voxels", 0.5, "1 or more"),
        ("slice_voxels", 56.5, "at most 56"),
    ],
)
def test_invalid_limits_are_refused_by_name(field, value, message):
    config = shipped("msseg2_augmented")
    config.augmentation[field] = value
    with pytest.raises(InputError, match=message) as error:
        typed(config)
    assert f"config.augmentation.{field}" in str(error.value)
