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

    Args:
      thickness_voxels: 1 or more, of a slice; with 1 and phase 0 nothing changes.
      phase: share of the first slice that lies before the patch, 0 or more and less than 1.
    """
    matrix = _slice_matrix(image.shape[axis], thickness_voxels, phase)
    return _inside(
        lambda array: np.moveaxis(matrix @ np.moveaxis(array, axis, 1), 1, axis),
        image, brain,
    )  # fmt: skip


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


def _slice_matrix(size: int, thickness: float, phase: float) -> np.ndarray:
    """(size, size) float32: voxels to slices and back."""
    slices = int(np.ceil(size / thickness + phase))
    edges = (np.arange(slices + 1) - phase) * thickness  # voxel i covers i to i + 1
    voxels = np.arange(size)
    overlap = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    seen = overlap.max(axis=1) > 1e-6  # rounding may leave a last slice with nothing
    overlap = np.maximum(overlap[seen], 0)  # (slices, size)
    means = overlap / overlap.sum(axis=1, keepdims=True)
    centres = (edges[1:] + edges[:-1])[seen] / 2
    back = [np.interp(voxels + 0.5, centres, one) for one in np.eye(len(centres))]
    return (np.stack(back, axis=1) @ means).astype(np.float32)
