"""Scans without a natural zero, and scans with padding."""

import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.prepare.zero_level import with_natural_zero

SHAPE = (40, 44, 36)
BRAIN = 300.0


@pytest.fixture
def head(rng):
    """Return a ball of tissue with dark fluid inside, and a background with weak noise."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    image = np.where(radius < 0.75, BRAIN, np.abs(rng.normal(0, 4, SHAPE)))
    image = np.where(radius < 0.2, 0.15 * BRAIN, image)
    image += np.where(radius < 0.75, rng.normal(0, 10, SHAPE), 0)
    return np.maximum(image, 0).astype(np.float32), radius < 0.75


def test_a_scan_without_negative_values_is_the_same_object(head):
    image, _ = head
    zeroed = with_natural_zero(image, "a.nii")
    assert zeroed.array is image
    assert zeroed.warnings == ()
    np.testing.assert_array_equal(zeroed.is_empty, image == 0)


@pytest.mark.parametrize("value", [-1024.0, -32768.0, -2000.0])
@pytest.mark.parametrize("place", ["border", "scattered", "in the brain"])
def test_padding_is_treated_as_missing_wherever_it_lies(head, rng, value, place):
    image, brain = head
    padded = image.copy()
    if place == "border":
        where = np.ones(SHAPE, bool)
        where[4:-4, 4:-4, 4:-4] = False
    elif place == "scattered":
        where = rng.random(SHAPE) < 0.003
    else:
        where = np.zeros(SHAPE, bool)
        where[18:24, 10:16, 15:20] = True
    padded[where] = value
    zeroed = with_natural_zero(padded, "a.nii")
    assert zeroed.array.min() == 0
    np.testing.assert_array_equal(zeroed.array[~where], image[~where])
    assert zeroed.is_empty[where].all()
    assert not zeroed.is_empty[brain & ~where & (image > 0)].any()
    (warning,) = zeroed.warnings
    assert f"padding value {value:g}" in warning


def test_two_padding_values_are_both_found(head):
    image, _ = head
    padded = image.copy()
    padded[:3], padded[-3:] = -1024, -32768
    zeroed = with_natural_zero(padded, "a.nii")
    assert "-32768 or -1024" in zeroed.warnings[0]
    assert zeroed.is_empty[:3].all()
    assert zeroed.is_empty[-3:].all()
    np.testing.assert_array_equal(zeroed.array[3:-3], image[3:-3])


def test_values_mixed_with_padding_by_interpolation_are_missing_too(head):
    image, _ = head
    padded = image.copy()
    padded[:4] = -1024
    padded[4] = 0.5 * padded[4] - 512
    zeroed = with_natural_zero(padded, "a.nii")
    assert zeroed.is_empty[:5].all()
    np.testing.assert_array_equal(zeroed.array[5:], image[5:])


@pytest.mark.parametrize("shift", [(0.5, 0.5, 0.0), (0.3, 0.4, 0.2)])
def test_padding_is_found_after_the_padded_scan_was_resampled(head, shift):
    image, _ = head
    padded = image.copy()
    padded[:5] = padded[:, :5] = -1024
    moved = ndimage.shift(padded, shift, order=1, mode="nearest")
    zeroed = with_natural_zero(moved, "a.nii")
    np.testing.assert_array_equal(zeroed.array[9:, 9:], moved[9:, 9:])
    assert zeroed.is_empty[:5].all()
    assert "padding value -1024." in zeroed.warnings[0]
    assert len(zeroed.warnings) == 1


def test_dark_tissue_next_to_the_padding_of_a_scored_scan_is_kept(head):
    image, brain = head
    scored = np.where(brain, (image - image[brain].mean()) / image[brain].std(), -30)
    zeroed = with_natural_zero(scored.astype(np.float32), "a.nii")
    assert zeroed.is_empty[~brain].all()
    assert zeroed.is_empty[brain].mean() < 0.01


def test_many_different_outliers_are_set_to_0_and_take_no_time(head, rng):
    image, _ = head
    damaged = image.copy()
    where = tuple(rng.integers(0, side, 30) for side in SHAPE)
    damaged[where] = -1e6 * np.arange(1, 31)
    zeroed = with_natural_zero(damaged, "a.nii")
    good = np.ones(SHAPE, bool)
    good[where] = False
    np.testing.assert_array_equal(zeroed.array[good], image[good])
    assert (zeroed.array[~good] == 0).all()


def test_a_few_slightly_negative_voxels_are_set_to_0_without_a_word(head):
    image, _ = head
    ringing = image.copy()
    ringing[:2, :2, :2] = -3.5
    zeroed = with_natural_zero(ringing, "a.nii")
    assert zeroed.warnings == ()
    assert zeroed.array.min() == 0
    np.testing.assert_array_equal(zeroed.array[2:], image[2:])


@pytest.mark.parametrize("offset", [-100.0, -290.0])
def test_an_offset_is_undone_to_within_the_noise_of_the_background(head, offset):
    image, brain = head
    zeroed = with_natural_zero(image + np.float32(offset), "a.nii")
    assert np.median(zeroed.array[brain]) == pytest.approx(np.median(image[brain]), abs=6)
    assert "no natural zero" in zeroed.warnings[0]


def test_a_scan_of_zero_mean_and_unit_variance_gets_its_zero_back(head):
    image, brain = head
    scored = ((image - image.mean()) / image.std()).astype(np.float32)
    zeroed = with_natural_zero(scored, "a.nii")
    ratio = zeroed.array[brain] / image[brain]
    fluid = image[brain] < 0.5 * BRAIN
    assert np.median(ratio[fluid]) == pytest.approx(np.median(ratio[~fluid]), rel=0.15)


def test_a_masked_brain_of_zero_mean_keeps_its_background_apart(head):
    """Take the darkest tissue for the level, because nothing else is known."""
    image, brain = head
    masked = np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)
    zeroed = with_natural_zero(masked.astype(np.float32), "a.nii")
    assert (zeroed.array[~brain] == 0).all()
    assert zeroed.is_empty[~brain].all()
    assert (zeroed.array[brain] > 0).mean() > 0.99
    assert np.corrcoef(zeroed.array[brain], image[brain])[0, 1] > 0.99
