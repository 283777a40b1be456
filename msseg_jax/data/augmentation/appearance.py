"""What another scanner, or another day, would have made of one visit's intensities.

Intensities are z-scores of the brain. A scanner's gain, its coil's bias field and a gamma act on a
signal that is never negative, so these three act on what a z-score has above that of no signal
(`zero_signal`). Of a gain the normalisation of a whole visit leaves little: what is drawn here is
what it leaves, as lesions or the mask make one visit's mean and deviation differ from the other's.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msseg_jax.data.augmentation.smooth import spline_field
from msseg_jax.data.intensity import BACKGROUND


@dataclass(frozen=True)
class Appearance:
    """What is done to one visit; nothing, unless it is said."""

    gamma: float = 1.0  # exponent
    gain: float = 1.0  # factor
    bias: np.ndarray | None = None  # (n, n, n), control values of the factor's logarithm
    blur_voxels: float = 0.0  # Gaussian standard deviation
    slice_axis: int = 0
    slice_voxels: float = 1.0  # thickness
    slice_phase: float = 0.0  # where the first slice begins before the patch, in slices, 0..1
    noise: float = 0.0  # Gaussian standard deviation, in standard deviations of the brain
    noise_seed: int = 0
    zero_signal: float = -4.0  # the z-score of no signal at all


def change_appearance(image: np.ndarray, brain: np.ndarray, appearance: Appearance) -> np.ndarray:
    """One visit (S, S, S) float32 to another, in the order of what happens to a signal: the tissue,
    the coil, the resolution, the noise. BACKGROUND stays outside the brain."""
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
    """The signal to the power of gamma, in units in which the brain's mean is 1.

    So the z-scores 0 and `zero_signal` stay: normalisation would bring the mean back, too.
    """
    signal = image / np.float32(-zero_signal) + np.float32(1)
    # What interpolation and noise have pushed below no signal keeps its order.
    changed = np.copysign(np.abs(signal) ** np.float32(gamma), signal)
    return (changed - np.float32(1)) * np.float32(-zero_signal)


def multiply_signal(
    image: np.ndarray, factor: float | np.ndarray, zero_signal: float
) -> np.ndarray:
    """The signal times a factor, one or one per voxel."""
    zero = np.float32(zero_signal)
    return (image - zero) * np.float32(factor) + zero


def bias_field(appearance: Appearance, image: np.ndarray) -> np.ndarray | float:
    """The coil's factor in every voxel, smooth and positive: (S, S, S) float32; 1 if none."""
    if appearance.bias is None:
        return 1.0
    return np.exp(spline_field(appearance.bias, image.shape[0]))


def blur(image: np.ndarray, brain: np.ndarray, sigma_voxels: float) -> np.ndarray:
    """Gaussian blur inside the brain."""
    return _inside(
        lambda array: ndimage.gaussian_filter(array, sigma_voxels, mode="nearest"), image, brain
    )


def thicken_slices(
    image: np.ndarray, brain: np.ndarray, axis: int, thickness_voxels: float, phase: float
) -> np.ndarray:
    """Means over slices across an axis, then linear interpolation between the slices' centres.

    Beyond the outer centres the straight line goes on, so a ramp stays a ramp. Where the brain
    fills too little of the outer slices for that, the outermost mean is held.

    Args:
      thickness_voxels: 1 or more, of a slice; with 1 and phase 0 nothing changes.
      phase: share of the first slice that lies before the patch, 0 or more and less than 1.
    """
    straight, held = _slice_matrices(image.shape[axis], thickness_voxels, phase)

    def across(matrix: np.ndarray, array: np.ndarray) -> np.ndarray:
        return np.moveaxis(matrix @ np.moveaxis(array, axis, 1), 1, axis)

    if brain.all():
        return across(straight, image)
    # Going on has negative weights: `_inside` must not divide by what they leave of a small share.
    steady = across(straight, brain.astype(np.float32)) > 0.5
    return _inside(
        lambda array: np.where(steady, across(straight, array), across(held, array)), image, brain
    )


def add_noise(image: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Independent Gaussian noise of every voxel, a function of `seed`."""
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(deviation) * noise


def _inside(smooth, image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """A linear filter that sees the brain alone, so that its rim is not drawn to the background."""
    if brain.all():
        return smooth(image)
    weight = smooth(brain.astype(np.float32))
    filtered = smooth(np.where(brain, image, np.float32(0)))
    return np.divide(filtered, weight, out=np.zeros_like(filtered), where=brain)


def _slice_matrices(size: int, thickness: float, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Two of (size, size) float32: voxels to slices and back, as a straight line beyond the outer
    centres, and with the outer means held there."""
    slices = int(np.ceil(size / thickness + phase))
    # Voxel i covers i to i + 1. Of a slice that the patch cuts, only the part inside is seen.
    edges = np.clip((np.arange(slices + 1) - phase) * thickness, 0, size)
    seen = np.diff(edges) > 1e-6  # rounding may leave a last slice with nothing
    first, last = edges[:-1][seen, None], edges[1:][seen, None]
    voxels = np.arange(size)
    overlap = np.maximum(np.minimum(last, voxels + 1) - np.maximum(first, voxels), 0)
    means = overlap / overlap.sum(axis=1, keepdims=True)  # (slices, size)
    places = voxels + 0.5
    # Of the voxels' centres by what each gives, not of the edges: so the mean of a ramp is its
    # value there, even where a slice takes a part of a voxel.
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
