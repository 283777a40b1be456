"""Change the intensities of one visit, as if it had been acquired on another scanner or day.

Intensities are z-scores of the brain. A scanner's gain, the bias field of its coil and a gamma act
on a signal that is never negative. These three are therefore applied to the difference between a
z-score and `zero_signal`, the z-score of zero signal. The normalisation of a whole visit removes
most of a gain. The gains drawn here stand for the rest, which remains because lesions or the mask
make the mean and the standard deviation differ between the visits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msseg_jax.data.augmentation.smooth import spline_field
from msseg_jax.data.intensity import BACKGROUND


@dataclass(frozen=True)
class Appearance:
    """The changes to one visit. The defaults change nothing."""

    gamma: float = 1.0  # exponent
    gain: float = 1.0  # factor
    bias: np.ndarray | None = None  # (n, n, n), control values for the logarithm of the factor
    blur_voxels: float = 0.0  # standard deviation of the Gaussian
    slice_axis: int = 0
    slice_voxels: float = 1.0  # thickness of a slice
    slice_phase: float = 0.0  # fraction of the first slice that lies before the patch, 0..1
    noise: float = 0.0  # standard deviation of Gaussian noise, as a z-score
    noise_seed: int = 0
    zero_signal: float = -4.0  # z-score of zero signal


def change_appearance(image: np.ndarray, brain: np.ndarray, appearance: Appearance) -> np.ndarray:
    """Return the changed visit, (S, S, S) float32, with BACKGROUND outside the brain.

    The changes follow the order of the physical effects: tissue (gamma), coil (gain and bias),
    resolution (blur and slices), noise.
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
    """Raise the signal to the power of gamma, in units in which the brain's mean signal is 1.

    Therefore the z-scores 0 and `zero_signal` do not change. Normalisation would restore the mean
    in any case.
    """
    signal = image / np.float32(-zero_signal) + np.float32(1)
    # Interpolation and noise can make a signal negative. `copysign` keeps the order of the values.
    changed = np.copysign(np.abs(signal) ** np.float32(gamma), signal)
    return (changed - np.float32(1)) * np.float32(-zero_signal)


def multiply_signal(
    image: np.ndarray, factor: float | np.ndarray, zero_signal: float
) -> np.ndarray:
    """Multiply the signal by one factor for all voxels, or by one factor per voxel."""
    zero = np.float32(zero_signal)
    return (image - zero) * np.float32(factor) + zero


def bias_field(appearance: Appearance, image: np.ndarray) -> np.ndarray | float:
    """Return the bias field, a smooth positive factor (S, S, S) float32; 1.0 if bias is None."""
    if appearance.bias is None:
        return 1.0
    return np.exp(spline_field(appearance.bias, image.shape[0]))


def blur(image: np.ndarray, brain: np.ndarray, sigma_voxels: float) -> np.ndarray:
    """Blur the brain with a Gaussian, without mixing in the background."""
    return _inside(
        lambda array: ndimage.gaussian_filter(array, sigma_voxels, mode="nearest"), image, brain
    )


def thicken_slices(
    image: np.ndarray, brain: np.ndarray, axis: int, thickness_voxels: float, phase: float
) -> np.ndarray:
    """Average over thick slices along an axis, then interpolate linearly between their centres.

    Beyond the centres of the outermost slices, the intensities are extrapolated linearly, so a ramp
    stays a ramp. Where these slices contain too little brain for an extrapolation, the mean of the
    outermost slice is used instead.

    Args:
      thickness_voxels: thickness of a slice, 1 or more. With 1 and phase 0 nothing changes.
      phase: fraction of the first slice that lies before the patch, at least 0 and less than 1.
    """
    straight, held = _slice_matrices(image.shape[axis], thickness_voxels, phase)

    def across(matrix: np.ndarray, array: np.ndarray) -> np.ndarray:
        return np.moveaxis(matrix @ np.moveaxis(array, axis, 1), 1, axis)

    if brain.all():
        return across(straight, image)
    # Extrapolation has negative weights. If there is little brain in the outer slices, its total
    # weight can be almost zero, and `_inside` must not divide by that.
    steady = across(straight, brain.astype(np.float32)) > 0.5
    return _inside(
        lambda array: np.where(steady, across(straight, array), across(held, array)), image, brain
    )


def add_noise(image: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Add independent Gaussian noise to every voxel. The noise depends only on `seed`."""
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(deviation) * noise


def _inside(
    smooth: Callable[[np.ndarray], np.ndarray], image: np.ndarray, brain: np.ndarray
) -> np.ndarray:
    """Apply a linear filter to the brain only, so that the rim of the brain keeps its intensity."""
    if brain.all():
        return smooth(image)
    weight = smooth(brain.astype(np.float32))
    filtered = smooth(np.where(brain, image, np.float32(0)))
    return np.divide(filtered, weight, out=np.zeros_like(filtered), where=brain)


def _slice_matrices(size: int, thickness: float, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two (size, size) float32 matrices that average over slices and interpolate back.

    They differ only beyond the centres of the outermost slices. There, the first matrix
    extrapolates linearly, and the second repeats the mean of the outermost slice.
    """
    slices = int(np.ceil(size / thickness + phase))
    # Voxel i covers the interval from i to i + 1. If the patch cuts a slice, only the part of the
    # slice inside the patch counts.
    edges = np.clip((np.arange(slices + 1) - phase) * thickness, 0, size)
    seen = np.diff(edges) > 1e-6  # rounding may produce an empty last slice
    first, last = edges[:-1][seen, None], edges[1:][seen, None]
    voxels = np.arange(size)
    overlap = np.maximum(np.minimum(last, voxels + 1) - np.maximum(first, voxels), 0)
    means = overlap / overlap.sum(axis=1, keepdims=True)  # (slices, size)
    places = voxels + 0.5
    # The centre of a slice is the weighted mean of its voxels' centres, not the middle between its
    # edges. The mean of a ramp over a slice then equals the ramp's value at the centre, even if
    # the slice contains only a part of a voxel.
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
