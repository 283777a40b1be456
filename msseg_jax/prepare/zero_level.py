"""Find the natural zero of a scan's intensities, and the voxels that hold no data.

In an MR image, 0 means no signal. Bias correction takes logarithms, so it needs this zero. Some
programs lose it: they pad images with values such as -1024, subtract a constant, or scale to zero
mean. The bounds below were chosen by this project.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

PADDING_GAP = 0.5  # smallest distance of padding from all other values, relative to their range
MOST_VALUES = 4  # padding values of one scan; more outliers are damage, and become 0
NEAR_PADDING_VOXELS = 2  # interpolation may have mixed padding into voxels this near
RINGING = 0.05  # negative values down to this share of the bright ones are due to interpolation
BACKGROUND_SHARE = 0.2  # share of voxels with one exact value that shows a masked background
BINS = 256  # of the histogram in which the background is found
SAMPLE = 2_000_000  # voxels from which percentiles are computed


@dataclass(frozen=True)
class Zeroed:
    """A scan with a natural zero."""

    array: np.ndarray  # (D, H, W) float32, 0 or more
    is_empty: np.ndarray  # (D, H, W) bool, voxels without data: padding and exact zeros
    warnings: tuple[str, ...]  # what was changed, as sentences


def with_natural_zero(array: np.ndarray, name: str) -> Zeroed:
    """Return a scan with 0 as the level of no signal. A scan without negative values is unchanged.

    Args:
      array: (D, H, W) float32, finite, not constant.
      name: names the scan in the warnings.
    """
    if array.min() >= 0:
        return Zeroed(array, array == 0, ())
    warnings = []
    padding, values = _find_padding(array)
    if padding.any():
        share = 100 * padding.mean()
        warnings.append(
            f"{name}: {share:.2g} % of the voxels have the padding value "
            f"{' or '.join(f'{value:g}' for value in values)}. They are treated as missing."
        )
    rest = _sample(array[~padding])
    lowest, bright = np.percentile(rest, (0.1, 99))
    level = 0.0
    background = np.zeros(array.shape, bool)
    if lowest < -RINGING * max(bright, 0):
        level, background = _level(array, padding, rest)
        warnings.append(
            f"{name}: the intensities have no natural zero (smallest {rest.min():.4g}, largest "
            f"{rest.max():.4g}). {level:.4g} is used as the level of no signal."
        )
    outside = padding | background
    zeroed = np.where(outside, 0, np.maximum(array - np.float32(level), 0)).astype(np.float32)
    return Zeroed(zeroed, padding | (zeroed == 0), tuple(warnings))


def _find_padding(array: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Return which voxels are padding, and the padding values.

    A padding value is negative, and far below everything else.
    """
    padding = np.zeros(array.shape, bool)
    values: list[float] = []
    for _ in range(MOST_VALUES):
        rest = array[~padding]
        value = rest.min() if rest.size else np.float32(0)
        if value >= 0:
            break
        # Near padding, interpolation gives values that fill the gap. They are not looked at.
        found = padding | (array == value)
        near = ndimage.binary_dilation(found, iterations=NEAR_PADDING_VOXELS)
        others = array[~near]
        if not others.size:
            break
        low, high = np.percentile(_sample(others), (1, 99))
        if others.min() - value < PADDING_GAP * (high - low):
            break
        # Of the voxels near padding, those darker than the rest are mixed with it.
        padding = found | (near & (array < min(0.0, float(low))))
        values.append(float(value))
    # Later values that are not whole numbers are mixtures with the first one.
    return padding, values[:1] + [value for value in values[1:] if value.is_integer()]


def _level(array: np.ndarray, padding: np.ndarray, sample: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the level of no signal, and the voxels of a masked background.

    If padding, or one exact value with others below it, fills a large part of the scan, then the
    background was masked. The darkest tissue, which is fluid in a FLAIR, is then the best guess for
    the level. If not, the level is that of the background.
    """
    if padding.mean() > BACKGROUND_SHARE:
        return float(np.percentile(sample, 0.1)), np.zeros(array.shape, bool)
    values, counts = np.unique(sample, return_counts=True)
    common = values[counts.argmax()]
    if counts.max() > BACKGROUND_SHARE * sample.size and common > np.percentile(sample, 1):
        background = array == common
        return float(np.percentile(array[~(padding | background)], 0.1)), background
    low, high = np.percentile(sample, (0.1, 99.9))
    counts, edges = np.histogram(sample, BINS, (low, high))
    # The background is the first large peak from the dark side.
    peak = int(np.argmax(counts >= 0.5 * counts.max()))
    return float((edges[peak] + edges[peak + 1]) / 2), np.zeros(array.shape, bool)


def _sample(values: np.ndarray) -> np.ndarray:
    """Return some of many values, evenly spaced."""
    return values.ravel()[:: max(1, values.size // SAMPLE)]
