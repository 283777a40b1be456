"""Test the registration with two visits of a phantom head, registered once for this file."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from msseg_jax.prepare import visits
from msseg_jax.prepare.atlas import brain_by_atlas, fit_atlas, load_atlas, seen
from msseg_jax.prepare.bias import correct_bias
from msseg_jax.prepare.brain_mask import find_brain
from msseg_jax.prepare.registration import compose, isotropic, matrix_of, on_grid, points_of, rigid
from msseg_jax.prepare.scan import read_scan
from msseg_jax.prepare.visits import look_at, register_visits
from msseg_jax.system.errors import InputError
from tests.support import heads

SPACING_MM = 2.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = heads.write_heads(tmp_path_factory.mktemp("heads"))
    scans = tuple(read_scan(folder / f"time0{k}.nii.gz") for k in (1, 2))
    return SimpleNamespace(
        scans=scans, brain=heads.read(folder / "brain01.nii.gz") > 0, folder=folder
    )


@pytest.fixture(scope="module")
def found(pair):
    return register_visits(pair.scans)


def test_the_motion_between_the_visits_is_found(pair, found):
    # Even before the motion, the visits of the phantom are up to 0.5 mm apart, like real ones.
    off_mm = heads.distances_mm(found.transform, heads.MOTION, points_of(pair.brain, 2000))
    assert off_mm.mean() < 0.7
    assert off_mm.max() < 1.2
    assert found.correlation > 0.8


def test_the_transform_is_rigid(found):
    matrix, _ = matrix_of(found.transform)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_the_brain_is_found_in_both_visits(pair, found):
    assert heads.dice(found.visits[0].brain, pair.brain) > 0.95
    there = on_grid(pair.brain, pair.scans[1].image, heads.MOTION.GetInverse())
    assert heads.dice(found.visits[1].brain, there) > 0.95


def test_the_brain_found_in_the_image_is_better_than_the_atlas(pair, found):
    visit = found.visits[0]
    by_atlas = brain_by_atlas(load_atlas(), visit.to_atlas, visit.scan.image)
    assert heads.dice(visit.brain, pair.brain) > heads.dice(by_atlas, pair.brain) + 0.01


@pytest.mark.slow
def test_the_brain_is_found_with_a_bright_scalp_and_a_vertex_out_of_view(pair, tmp_path):
    image, brain = heads.with_bright_fat(pair.scans[0].image, pair.brain, cut_mm=16)
    visit = look_at(heads.scan_of(image, tmp_path, "fat"))
    assert heads.dice(visit.brain, brain) > 0.95


def test_the_brain_is_found_in_thick_slices_with_a_short_field_of_view(pair, tmp_path):
    image, brain = heads.with_thick_slices(pair.scans[0].image, pair.brain, fat=1.6)
    visit = look_at(heads.scan_of(image, tmp_path, "thick"))
    assert heads.dice(visit.brain, brain) > 0.92


@pytest.mark.slow
def test_the_brain_is_found_in_thick_slices_with_a_brighter_scalp(pair, tmp_path):
    image, brain = heads.with_thick_slices(pair.scans[0].image, pair.brain, fat=1.8)
    visit = look_at(heads.scan_of(image, tmp_path, "thick"))
    assert heads.dice(visit.brain, brain) > 0.92


def test_fat_outside_the_atlas_is_excluded_and_a_lesion_inside_it_is_included():
    z, y, x = np.ogrid[:50, :60, :60]
    radius = np.sqrt((z - 20) ** 2 + (y - 30) ** 2 + (x - 30) ** 2) * SPACING_MM
    brain, orbit = radius < 30, (abs(z - 39) < 5) & (abs(y - 30) < 8) & (abs(x - 30) < 8)
    lesion = (abs(z - 20) < 4) & (abs(y - 30) < 4) & (abs(x - 43) < 3)  # at the brain's edge

    def image_of(array):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((SPACING_MM,) * 3)
        return image

    values = np.where(orbit & ~brain, 2.0, brain * 1.0) + 1.0 * (lesion & brain)
    prior = image_of((radius < 28).astype(np.uint8))
    found = find_brain(image_of(values.astype(np.float32)), prior)
    assert heads.dice(found, image_of(brain.astype(np.uint8))) > 0.98
    assert sitk.GetArrayFromImage(found)[lesion & (radius < 28)].all()


@pytest.mark.parametrize("stretch", [0.75, 1.3])
def test_an_implausible_stretch_of_the_average_brain_is_refused(pair, stretch):
    wrong = rigid(np.diag([1.0, 1.0, stretch]), np.zeros(3))
    with pytest.raises(
        InputError, match=rf"time01.nii.gz: no head.*to {stretch} times.*give brain masks"
    ):
        visits._find_in(load_atlas(), pair.scans[0], (wrong, 0.9))


def test_swapping_the_visits_gives_the_inverse_motion(pair, found):
    other_way = visits._match_brains(found.visits[::-1], found.transform.GetInverse())
    both_ways = compose(other_way.transform, found.transform)
    still = rigid(np.eye(3), np.zeros(3))
    assert heads.distances_mm(both_ways, still, points_of(pair.brain, 2000)).max() < 0.3


def mirrored(image: sitk.Image) -> sitk.Image:
    """Swap left and right, as a wrong header does."""
    across = np.abs(np.array(image.GetDirection()).reshape(3, 3)[0]).argmax()  # the axis along x
    return sitk.Flip(image, [bool(axis == across) for axis in range(3)], False)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(False, id="masks found"),
        pytest.param(True, id="masks given", marks=pytest.mark.slow),
    ],
)
def test_a_visit_with_swapped_sides_is_refused(pair, found, given):
    assert found.mirror_gain < -0.1
    first, second = found.visits
    # The moved and mirrored first visit is used as the second visit. It is mirrored along the
    # grid, so the heads still overlap.
    image = heads.move(pair.scans[0].image, heads.MOTION)
    brain = on_grid(pair.brain, image, heads.MOTION.GetInverse())
    flat, inside = visits.without_peaks(mirrored(image)), mirrored(brain)
    for one in (flat, inside):
        one.CopyInformation(image)
    turned = {"flat": visits.coarser(flat, tuple(first.flat)), "brain": inside}
    if given:
        turned |= {"to_atlas": None, "atlas_correlation": None, "grey_to_white": None}
    with pytest.raises(InputError, match=r"left and right are swapped in one visit"):
        visits._match_brains((first, replace(second, **turned)), found.transform)


def test_visits_without_similarity_are_refused(found, monkeypatch):
    monkeypatch.setattr(visits, "FINE_MM", (4.0,))  # faster; a finer grid would not help
    second = found.visits[1]
    size = second.scan.image.GetSize()
    image = sitk.GetImageFromArray(
        np.random.default_rng(0).normal(size=size[::-1]).astype(np.float32)
    )
    image.CopyInformation(second.scan.image)
    noise = replace(second, flat=visits.coarser(image, tuple(second.flat)))
    with pytest.raises(InputError, match=r"time01.*time02.*do not match inside the brain"):
        visits._match_brains((found.visits[0], noise), found.transform)


def test_the_fine_registration_is_left_out_for_visits_without_similarity(found, monkeypatch):
    monkeypatch.setattr(visits, "FINE_MM", (4.0, 3.0))
    refined = []
    monkeypatch.setattr(
        visits, "refine_on", lambda fixed, *_: refined.append(fixed.GetSpacing()[0])
    )

    def with_3_mm(visit, image):
        return replace(
            visit, flat={**visit.flat, 4.0: image, 2.0: image, 3.0: isotropic(image, 3.0)}
        )

    first, second = found.visits
    good = (with_3_mm(first, first.flat[2.0]), with_3_mm(second, second.flat[2.0]))
    assert visits._refine_inside(good, found.transform) > 0.85
    assert refined == [2.0, 3.0]
    size = second.flat[2.0].GetSize()
    noise = sitk.GetImageFromArray(
        np.random.default_rng(0).normal(size=size[::-1]).astype(np.float32)
    )
    noise.CopyInformation(second.flat[2.0])
    refined.clear()
    assert visits._refine_inside((good[0], with_3_mm(second, noise)), found.transform) < 0.3
    assert refined == [2.0]


def test_a_t1_weighted_image_is_refused(tmp_path):
    from nilearn.datasets import load_mni152_template

    load_mni152_template(resolution=2).to_filename(tmp_path / "t1.nii.gz")
    scan = read_scan(tmp_path / "t1.nii.gz")
    fit = fit_atlas(load_atlas(), seen(scan.image), [rigid(np.eye(3), np.zeros(3))])
    with pytest.raises(InputError, match=r"t1.nii.gz: grey matter is 0\.\d+ times"):
        visits._find_in(load_atlas(), scan, fit)


def test_an_image_without_a_head_is_refused(tmp_path):
    generator = np.random.default_rng(0)
    noise = generator.normal(100, 30, (40, 50, 50)).astype(np.float32)
    image = sitk.GetImageFromArray(noise)
    image.SetSpacing((4.0, 4.0, 4.0))
    scan = heads.scan_of(image, tmp_path, "bottle")
    fit = fit_atlas(load_atlas(), seen(scan.image), [rigid(np.eye(3), np.zeros(3))])
    with pytest.raises(InputError, match=r"bottle.nii.gz: no head was found.*give brain masks"):
        visits._find_in(load_atlas(), scan, fit)


def test_given_masks_are_used_without_the_atlas(pair, monkeypatch):
    def no_atlas():
        raise AssertionError("the atlas was loaded")

    monkeypatch.setattr(visits, "load_atlas", no_atlas)
    given = register_visits(pair.scans, (pair.brain, None))
    assert heads.dice(given.visits[0].brain, pair.brain) == 1
    # The second visit gets the mask of the first, resampled.
    there = on_grid(pair.brain, pair.scans[1].image, heads.MOTION.GetInverse())
    assert heads.dice(given.visits[1].brain, there) > 0.97
    assert heads.distances_mm(given.transform, heads.MOTION, points_of(pair.brain, 500)).max() < 1.2
    assert given.mirror_gain < -0.1


def test_a_known_bias_field_is_corrected(pair):
    """Compare inside the brain. N4's smooth field fits the known one only approximately."""
    clean = pair.scans[0].image
    x = np.linspace(-1, 1, clean.GetSize()[0], dtype=np.float32)
    field = np.exp(0.5 * x)[None, None] * np.ones(clean.GetSize()[::-1], np.float32)
    image = sitk.GetImageFromArray(sitk.GetArrayFromImage(clean) * field)
    image.CopyInformation(clean)
    inside = sitk.GetArrayFromImage(pair.brain) > 0

    def spread(biased):
        flat = sitk.GetArrayFromImage(correct_bias(biased, pair.brain))
        ratio = flat[inside] / np.maximum(
            sitk.GetArrayFromImage(correct_bias(clean, pair.brain))[inside], 1
        )
        return np.std(ratio / ratio.mean())

    before = np.std(field[inside] / field[inside].mean())
    assert before > 0.15
    assert spread(image) < 0.2 * before
