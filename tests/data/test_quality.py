import re

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.preprocess import Preprocessing, Resampled
from msseg_jax.data.quality import Quality, assess
from msseg_jax.volumes.alignment import Alignment, measure_alignment
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.volume import Volume

SPACING_MM = np.array([1.5, 1.0, 2.0])
SHAPE = (60, 90, 45)  # 90 mm along each axis
MM_2 = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def head():
    """Return an image of blobs of a few millimetres, and a brain mask: a ball in the image."""
    noise = np.random.default_rng(0).normal(size=SHAPE)
    image = 100 + 400 * ndimage.gaussian_filter(noise, 4 / SPACING_MM)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    brain = sum(axis**2 for axis in axes) < 0.8
    return image.astype(np.float32), brain


@pytest.mark.parametrize("shift_mm", [(0, 0, 0), (2, 0, 0), (0, -1.5, 0), (1, 1, 3)])
def test_a_shift_is_measured_in_mm_for_any_gain(head, shift_mm):
    image, brain = head
    moved = ndimage.shift(image, shift_mm / SPACING_MM, order=1, mode="nearest")
    found = measure_alignment(image, 3 * moved + 50, brain, SPACING_MM)
    assert found.displacement_mm == pytest.approx(np.linalg.norm(shift_mm), abs=0.25)


def test_a_rotation_is_measured_as_mean_displacement(head):
    image, brain = head
    centre = (np.array(SHAPE) - 1) / 2
    turn = np.radians(4)
    # Rotate in mm about the last axis, because the spacing along the other two axes differs.
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    matrix = np.diag(1 / SPACING_MM) @ rotation @ np.diag(SPACING_MM)
    moved = ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1)
    points = (np.argwhere(brain) - np.argwhere(brain).mean(axis=0)) * SPACING_MM
    expected = np.linalg.norm(points @ (rotation - np.eye(3)).T, axis=1).mean()
    found = measure_alignment(image, moved, brain, SPACING_MM)
    assert expected > 1.5
    assert found.displacement_mm == pytest.approx(expected, rel=0.15)


def test_a_new_lesion_does_not_look_like_motion(head):
    image, brain = head
    later = image.copy()
    later[30:36, 40:50, 20:25] += 300
    found = measure_alignment(image, later, brain, SPACING_MM)
    assert found.displacement_mm < 0.1


def test_unrelated_images_do_not_correlate(head):
    image, brain = head
    other = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), 3)
    found = measure_alignment(image, other.astype(np.float32), brain, SPACING_MM)
    assert abs(found.correlation) < 0.2


def quality(displacement_mm=0.2, correlation=0.98, brain_ml=1300.0, deviations=(3.0, 3.0), **more):
    alignment = Alignment(displacement_mm, correlation)
    return Quality(alignment, brain_ml, tuple((d, 5.0) for d in deviations), **more)


def test_a_good_pair_has_no_warning():
    assert quality().warnings() == []


@pytest.mark.parametrize("bright_ml", [(0.4, 0.0), (3.0, 1.1), (0.0, 9.0)])
def test_new_lesions_and_changes_in_both_directions_do_not_look_swapped(bright_ml):
    assert quality(bright_only_ml=bright_ml).warnings() == []


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ({"displacement_mm": 2.34}, "2.3 mm apart"),
        ({"correlation": 0.41, "displacement_mm": 9.0}, "correlation 0.41"),
        ({"displacement_mm": np.nan, "correlation": np.nan}, "could not be measured"),
        ({"correlation": 0.76}, "(correlation of edges 0.76, expected at least 0.85)"),
        ({"brain_ml": 2412.0}, "2412 ml"),
        ({"brain_ml": 310.0}, "310 ml"),
        ({"deviations": (3.0, 12.0)}, "The second visit's intensities .* 12 %"),
        ({"surface_to_depth": (1.1, 0.78)}, "second visit does not look like a FLAIR.* 0.78 times"),
        ({"bright_only_ml": (3.14, 0.2)}, "3.1 ml are bright only at the first visit.* swapped?"),
        ({"empty_ml": (31.4, 0.0)}, "31 ml of the brain have no data in the first visit"),
        ({"contradictions": ("a.nii: qform and sform",)}, "a.nii: qform and sform"),
    ],
)
def test_a_warning_gives_the_measured_value(measured, text):
    (warning,) = quality(**measured).warnings()
    assert re.search(text, warning)


def test_the_warning_about_the_distance_can_be_left_out():
    (warning,) = quality(displacement_mm=2.34, brain_ml=310.0).warnings(apart=False)
    assert "310 ml" in warning
    (warning,) = quality(displacement_mm=9.0, correlation=0.41).warnings(apart=False)
    assert "correlation 0.41" in warning


def test_the_question_about_the_patients_can_be_left_out():
    assert quality(correlation=0.86).warnings() == []
    (warning,) = quality(correlation=0.84).warnings()
    assert warning.endswith("Are both of one patient?")
    assert quality(correlation=0.84).warnings(one_patient=False) == []


def test_a_pair_is_measured_on_its_isotropic_grid(head):
    image, brain = head
    resampled = Resampled(
        np.stack([image, image]), brain, np.zeros((0, *SHAPE)), None, np.eye(4), None, None, None
    )
    settings = PreprocessingSettings(spacing_mm=2.0, percentiles=(1.0, 50.0, 99.0), patch_size=8)
    low, middle, high = np.percentile(image[brain], settings.percentiles)
    landmark = 100 * (middle - low) / (high - low)
    preprocessing = Preprocessing(
        settings=settings, landmarks=(0.0, landmark - 7, 100.0), deviation=4.0
    )
    visit = Volume(None, image, MM_2, nib.Nifti1Header())
    pair = Pair(visit, visit, brain, None, None)
    found = assess(pair, {settings: resampled}, [preprocessing])
    assert found.brain_ml == pytest.approx(brain.sum() * 8 / 1000)
    assert found.deviations == (pytest.approx((7, 4)), pytest.approx((7, 4)))
    assert assess(pair, {settings: resampled}, []).deviations is None
    assert "Left and right are a guess" in found.warnings()[0]  # neither qform nor sform is set


def test_the_network_that_exceeds_its_bound_most_decides(head):
    """Use one network that was trained on images like the first visit, and one for the second."""
    image, brain = head
    images = np.stack([image, np.exp(image / 20)])
    resampled = Resampled(images, brain, np.zeros((0, *SHAPE)), None, np.eye(4), None, None, None)
    visit = Volume(None, image, MM_2, nib.Nifti1Header())
    pair = Pair(visit, visit, brain, None, None)
    settings = (
        PreprocessingSettings(spacing_mm=2.0, percentiles=(1.0, 50.0, 99.0), patch_size=8),
        PreprocessingSettings(spacing_mm=1.0, percentiles=(1.0, 50.0, 99.0), patch_size=8),
    )
    quantiles = [np.percentile(visit[brain], (1, 50, 99)) for visit in images]
    middles = [100 * (middle - low) / (high - low) for low, middle, high in quantiles]
    fitted = [
        Preprocessing(settings=one, landmarks=(0.0, middle, 100.0), deviation=known)
        for one, middle, known in zip(settings, middles, (0.1, 0.2), strict=True)
    ]
    found = assess(pair, dict.fromkeys(settings, resampled), fitted)
    apart = abs(middles[0] - middles[1])
    assert apart > 1
    assert found.deviations == (pytest.approx((apart, 0.2)), pytest.approx((apart, 0.1)))
    assert found.brain_ml == pytest.approx(brain.sum() * 8 / 1000)
    warned = [warning for warning in found.warnings() if "intensities" in warning]
    assert ["first" in warned[0], "second" in warned[1], len(warned)] == [True, True, 2]


def test_a_brain_too_thin_to_measure_is_not_an_error(head):
    image, brain = head
    thin = measure_alignment(image[:, :, :1], image[:, :, :1], brain[:, :, 20:21], SPACING_MM)
    assert np.isnan(thin.displacement_mm)
    assert np.isnan(thin.correlation)
