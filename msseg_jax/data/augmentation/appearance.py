"""Change the intensities of one visit as another scanner, or another day, would.

Intensities are z-scores of the brain. A scanner's gain, the bias field of its coil and a gamma act
on a signal that is never negative. So these three act on the part of a z-score above that of no
signal (`zero_signal`). The normalisation of a whole visit removes most of a gain. What is drawn
here is the rest: lesions or the mask make the mean and deviation of the visits differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msseg_jax.data.augmentation.smooth import spline_field
from msseg_jax.data.intensity import BACKGROUND


@dataclass(frozen=True)
class Appearance:
    """The changes to one visit; by default there are none."""

    gamma: float = 1.0  # exponent
    gain: float = 1.0  # factor
    bias: np.ndarray | None = None  # (n, n, n), control values of the factor's logarithm
    blur_voxels: float = 0.0  # Gaussian standard deviation
    slice_axis: int = 0
    slice_voxels: float = 1.0  # thickness
    slice_phase: float = 0.0  # share of the first slice that lies before the patch, 0..1
    noise: float = 0.0  # Gaussian standard deviation, in standard deviations of the brain
    noise_seed: int = 0
    zero_signal: float = -4.0  # the z-score of no signal at all


def change_appearance(image: np.ndarray, brain: np.ndarray, appearance: Appearance) -> np.ndarray:
    """Return a changed visit, (S, S, S) float32, with BACKGROUND outside the brain.

    The order is that in which a signal arises: the tissue, the coil, the resolution, the noise.
    """
    zero = appearance.zero_signal
    if appearance.gamma != 1:
        image = change_gamma(image, appearance.gamma, zero)
    if appearance.gain != 1 or appearance.bias is not None:
        image = multiply_signal(image, appearance.gain * bias_field(appearance, image), zero)
    if appearance.blur_voxels > 0:
        image = blur(image, brain, appearance.blur_voxels)
    if appearance.slice_voxels != 1:
        image = thicken_slices(
            image, brain, appearance.slice_axis, appearance.slice_voxels, appearance.slice_phase
        )
    if appearance.noise > 0:
        image = add_noise(image, appearance.noise, appearance.noise_seed)
    return np.where(brain, image, np.float32(BACKGROUND))


def change_gamma(image: np.ndarray, gamma: float, zero_signal: float) -> np.ndarray:
    """Raise the signal to the power of gamma, in units in which the brain's mean is 1.

    So the z-scores 0 and `zero_signal` stay, as normalisation would restore the mean.
    """
    signal = image / np.float32(-zero_signal) + np.float32(1)
    # Values that interpolation and noise have pushed below no signal keep their order.
    changed = np.copysign(np.abs(signal) ** np.float32(gamma), signal)
    return (changed - np.float32(1)) * np.float32(-zero_signal)


def multiply_signal(
    image: np.ndarray, factor: float | np.ndarray, zero_signal: float
) -> np.ndarray:
    """Multiply the signal by a factor: one for all voxels, or one per voxel."""
    zero = np.float32(zero_signal)
    return (image - zero) * np.float32(factor) + zero


def bias_field(appearance: Appearance, image: np.ndarray) -> np.ndarray | float:
    """Return the coil's factor in every voxel, (S, S, S) float32, smooth and positive; or 1."""
    if appearance.bias is None:
        return 1.0
    return np.exp(spline_field(appearance.bias, image.shape[0]))


def blur(image: np.ndarray, brain: np.ndarray, sigma_voxels: float) -> np.ndarray:
    """Blur the inside of the brain with a Gaussian."""
    return _inside(
        lambda array: ndimage.gaussian_filter(array, sigma_voxels, mode="nearest"), image, brain
    )


def thicken_slices(
    image: np.ndarray, brain: np.ndarray, axis: int, thickness_voxels: float, phase: float
) -> np.ndarray:
    """Take means over slices across an axis, then interpolate linearly between their centres.

    Beyond the outer centres the straight line continues, so a ramp stays a ramp. If the brain
    fills too little of the outer slices for that, the outermost mean is held.

    Args:
      thickness_voxels: of a slice, 1 or more. With 1 and phase 0 nothing changes.
      phase: share of the first slice that lies before the patch, 0 or more and less than 1.
    """
    straight, held = _slice_matrices(image.shape[axis], thickness_voxels, phase)

    def across(matrix: np.ndarray, array: np.ndarray) -> np.ndarray:
        return np.moveaxis(matrix @ np.moveaxis(array, axis, 1), 1, axis)

    if brain.all():
        return across(straight, image)
    # The continued line has negative weights, which may leave almost nothing of a small share of
    # brain, and `_inside` must not divide by that.
    steady = across(straight, brain.astype(np.float32)) > 0.5
    return _inside(
        lambda array: np.where(steady, across(straight, array), across(held, array)), image, brain
    )


def add_noise(image: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Add independent Gaussian noise to every voxel, a function of `seed`."""
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(deviation) * noise


def _inside(
    smooth: Callable[[np.ndarray], np.ndarray], image: np.ndarray, brain: np.ndarray
) -> np.ndarray:
    """Apply a linear filter that sees only the brain, so that its rim keeps its intensity."""
    if brain.all():
        return smooth(image)
    weight = smooth(brain.astype(np.float32))
    filtered = smooth(np.where(brain, image, np.float32(0)))
    return np.divide(filtered, weight, out=np.zeros_like(filtered), where=brain)


def _slice_matrices(size: int, thickness: float, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two matrices, (size, size) float32, that lead from voxels to slices and back.

    Beyond the outer centres the first continues the straight line, and the second holds the outer
    means.
    """
    slices = int(np.ceil(size / thickness + phase))
    # Voxel i covers i to i + 1. If the patch cuts a slice, only the part inside counts.
    edges = np.clip((np.arange(slices + 1) - phase) * thickness, 0, size)
    seen = np.diff(edges) > 1e-6  # rounding may leave an empty last slice
    first, last = edges[:-1][seen, None], edges[1:][seen, None]
    voxels = np.arange(size)
    overlap = np.maximum(np.minimum(last, voxels + 1) - np.maximum(first, voxels), 0)
    means = overlap / overlap.sum(axis=1, keepdims=True)  # (slices, size)
    places = voxels + 0.5
    # The centre of a slice is the mean of its voxels' centres, weighted as the voxels are, and not
    # that of its edges. So the mean of a ramp is its value there, even if a slice takes a part of
    # a voxel.
    centres = means @ places
    if len(centres) == 1:
        one = np.repeat(means, size, axis=0).astype(np.float32)
        return one, one
    before = np.clip(np.searchsorted(centres, places) - 1, 0, len(centres) - 2)
    share = (places - centres[before]) / (centres[before + 1] - centres[before])

    def back(share: np.ndarray) -> np.ndarray:
        share = share[:, None]
        return ((1 - share) * means[before] + share * means[before + 1]).astype(np.float32)

    return back(share), back(np.clip(share, 0, 1))
