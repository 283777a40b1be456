import numpy as np
import pytest

from msseg_jax.data.augmentation.appearance import (
    Appearance,
    add_noise,
    blur,
    change_appearance,
    change_gamma,
    multiply_signal,
    thicken_slices,
)

SIZE = 12
IMAGE = np.random.default_rng(0).normal(size=(SIZE,) * 3).astype(np.float32)
BRAIN = np.zeros((SIZE,) * 3, bool)
BRAIN[2:, :9, 1:] = True
EVERYWHERE = np.ones_like(BRAIN)
EVERYTHING = Appearance(
    gamma=1.2, gain=0.9, bias=np.full((4, 4, 4), 0.1), blur_voxels=0.8, slice_axis=1,
    slice_voxels=2.5, slice_phase=0.3, noise=0.2, noise_seed=5,
)  # fmt: skip


def test_the_defaults_change_nothing():
    image = np.where(BRAIN, IMAGE, 0)
    np.testing.assert_array_equal(change_appearance(image, BRAIN, Appearance()), image)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: change_gamma(image, 1.0, -4.0),
        lambda image: multiply_signal(image, 1.0, -4.0),
        lambda image: blur(image, EVERYWHERE, 1e-3),
        lambda image: thicken_slices(image, EVERYWHERE, 1, 1.0, 0.0),
        lambda image: add_noise(image, 0.0, 3),
    ],
)
def test_each_neutral_change_is_the_identity(change):
    np.testing.assert_allclose(change(IMAGE), IMAGE, atol=1e-6)


@pytest.mark.parametrize(
    "one",
    [EVERYTHING]
    + [Appearance(**{name: getattr(EVERYTHING, name)})
       for name in ("gamma", "gain", "bias", "blur_voxels", "slice_voxels", "noise")],
)  # fmt: skip
def test_each_change_affects_the_brain_and_not_the_background(one):
    image = np.where(BRAIN, IMAGE, 0)
    changed = change_appearance(image, BRAIN, one)
    assert changed.dtype == np.float32
    assert (changed[~BRAIN] == 0).all()
    assert np.abs(changed - image)[BRAIN].mean() > 0.03


def test_gain_and_bias_multiply_the_distance_from_zero_signal():
    image = np.array([-4.0, 0.0, 1.0], np.float32)
    np.testing.assert_allclose(multiply_signal(image, 1.1, -4.0), [-4, 0.4, 1.5], atol=1e-6)
    field = Appearance(bias=np.full((4, 4, 4), np.log(1.5)))
    changed = change_appearance(np.ones_like(IMAGE), EVERYWHERE, field)
    np.testing.assert_allclose(changed, 5 * 1.5 - 4, rtol=1e-6)


def test_gamma_keeps_the_mean_and_zero_signal():
    image = np.array([-5.0, -4.0, -2.0, 0.0, 4.0], np.float32)
    squared = change_gamma(image, 2.0, -4.0)  # signals -1/4, 0, 1/2, 1 and 2
    np.testing.assert_allclose(squared, [-4.25, -4, -3, 0, 12], atol=1e-6)


@pytest.mark.parametrize("brain", [EVERYWHERE, BRAIN])
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("thickness", "phase"), [(1.0, 0.4), (2.5, 0.9), (4.0, 0.0), (3.7, 0.6)])
def test_a_constant_brain_stays_constant_in_thick_slices(brain, axis, thickness, phase):
    constant = np.where(brain, np.float32(1.5), np.float32(0))
    thick = thicken_slices(constant, brain, axis, thickness, phase)
    np.testing.assert_allclose(thick[brain], 1.5, rtol=1e-5)


@pytest.mark.parametrize("brain", [EVERYWHERE, BRAIN])
def test_a_constant_brain_stays_constant_when_blurred(brain):
    constant = np.where(brain, np.float32(1.5), np.float32(0))
    np.testing.assert_allclose(blur(constant, brain, 1.2)[brain], 1.5, rtol=1e-5)


def test_thick_slices_are_means_with_linear_interpolation_between_them():
    ramp = np.array([0, 2, 4, 10], np.float32)
    for axis in range(3):
        image = np.moveaxis(np.broadcast_to(ramp[:, None, None], (4, 4, 4)), 0, axis)
        thick = thicken_slices(image, np.ones((4, 4, 4), bool), axis, 2.0, 0.0)
        # The slices have the means 1 and 7. Their centres are 2 voxels apart: 3 per voxel.
        line = np.array([-0.5, 2.5, 5.5, 8.5])[:, None, None]
        expected = np.moveaxis(np.broadcast_to(line, (4, 4, 4)), 0, axis)
        np.testing.assert_allclose(thick, expected, rtol=1e-6)


def test_a_slice_cut_by_the_patch_is_the_mean_of_its_part_in_the_patch():
    image = np.broadcast_to(np.array([3, 5, 9, 10], np.float32)[:, None, None], (4, 4, 4))
    thick = thicken_slices(image, np.ones((4, 4, 4), bool), 0, 2.0, 0.5)
    # The slices contain voxel 0, voxels 1 and 2, and voxel 3. Their means are 3, 7 and 10, and
    # their centres are at 0.5, 2 and 3.5.
    np.testing.assert_allclose(thick[:, 0, 0], [3, 3 + 8 / 3, 8, 10], rtol=1e-6)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("thickness", [1.0, 1.5, 2.0, 3.7, 4.0, 7.0])
def test_a_ramp_stays_a_ramp_in_thick_slices(thickness, phase, axis):
    ramp = np.moveaxis(np.broadcast_to(np.arange(12.0)[:, None, None], (12, 12, 12)), 0, axis)
    thick = thicken_slices(ramp.astype(np.float32), EVERYWHERE, axis, thickness, phase)
    np.testing.assert_allclose(thick, ramp, atol=1e-4)


def test_one_slice_as_thick_as_the_patch_is_its_mean():
    thick = thicken_slices(IMAGE, EVERYWHERE, 0, float(SIZE), 0.0)
    np.testing.assert_allclose(thick, np.broadcast_to(IMAGE.mean(0), thick.shape), atol=1e-5)


@pytest.mark.parametrize("gap_voxels", [1, 2, 3])
@pytest.mark.parametrize("phase", [0.0, 0.1, 0.3])
def test_little_brain_in_an_outer_slice_does_not_blow_up(gap_voxels, phase):
    """Check the bounds: weights of at most 2 and -1 turn intensities of 1 to 2 into 0 to 3."""
    brain = EVERYWHERE.copy()
    brain[1 : 1 + gap_voxels] = False  # a gap in the brain, like a sulcus
    image = np.where(brain, 1.5 + 0.5 * np.sign(IMAGE), 0).astype(np.float32)
    thick = thicken_slices(image, brain, 0, 4.0, phase)
    assert thick[brain].min() > 0
    assert thick[brain].max() < 3


def test_a_point_blurs_to_a_gaussian():
    point = np.zeros((SIZE,) * 3, np.float32)
    point[6, 6, 6] = 1
    spread = blur(point, EVERYWHERE, 1.0)
    assert spread.sum() == pytest.approx(1, abs=1e-3)
    assert spread[7, 6, 6] / spread[6, 6, 6] == pytest.approx(np.exp(-0.5), rel=1e-3)


def test_noise_has_the_requested_deviation_and_depends_only_on_its_seed():
    zero = np.zeros((30, 30, 30), np.float32)
    noise = add_noise(zero, 0.3, 7)
    assert noise.std() == pytest.approx(0.3, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    np.testing.assert_array_equal(noise, add_noise(zero, 0.3, 7))
    assert (noise != add_noise(zero, 0.3, 8)).mean() > 0.99
