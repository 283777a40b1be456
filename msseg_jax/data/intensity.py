"""Normalise intensities between scans: Nyul's standard histogram, then z-scores.

Nyul, Udupa and Zhang, "New variants of a method of MRI scale standardization", IEEE Transactions
on Medical Imaging 19(2), 2000. Everything is measured inside the brain.
"""

from collections.abc import Sequence

import numpy as np

from msseg_jax.system.errors import InputError

SCALE = (0.0, 100.0)  # standard intensities of the first and the last percentile
BACKGROUND = 0.0  # value outside the brain: the brain's mean, and the value of zero padding


def measure_percentiles(
    image: np.ndarray, brain: np.ndarray, percentiles: Sequence[float]
) -> np.ndarray:
    """Return the intensities at `percentiles` inside the brain, (P,) float64.

    Args:
      percentiles: (P,), ascending, in per cent.

    Raises:
      InputError: The image is constant, or nearly so, inside the brain.
    """
    values = np.percentile(image[brain], percentiles)
    if not values[-1] > values[0]:
        raise InputError(
            f"the image is constant inside the brain: its {percentiles[0]} % and "
            f"{percentiles[-1]} % percentiles are both {values[0]:g}. Expected a FLAIR image."
        )
    return values


def fit_landmarks(measured: list[np.ndarray]) -> np.ndarray:
    """Return the landmarks, (P,): the standard intensity of each percentile.

    The percentiles of each image are scaled linearly, so that the first and the last fall on the
    ends of SCALE. The landmarks are the means over all images.

    Args:
      measured: (P,) percentiles of each training image.
    """
    return np.mean([_onto_scale(percentiles) for percentiles in measured], axis=0)


def histogram_deviation(measured: np.ndarray, landmarks: np.ndarray) -> float:
    """Return the distance of an image's histogram, before standardisation, from the standard one.

    It is the largest distance between a percentile and its landmark, in units of SCALE.
    """
    return float(np.abs(_onto_scale(measured) - landmarks).max())


def _onto_scale(percentiles: np.ndarray) -> np.ndarray:
    low, high = SCALE
    first, last = percentiles[0], percentiles[-1]
    return low + (percentiles - first) / (last - first) * (high - low)


def standardise(image: np.ndarray, measured: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Map the `measured` percentiles to `landmarks`, linearly in between; return float32.

    Beyond the first and the last percentile, the outermost segments are extrapolated, so that the
    brightest lesions keep their contrast.
    """
    # Coarsely quantised images have equal percentiles. There is no segment between these.
    distinct = np.concatenate([[True], np.diff(measured) > 0])
    knots, values = measured[distinct], landmarks[distinct]
    slopes = np.diff(values) / np.diff(knots)
    result = np.interp(image, knots, values)
    result += np.minimum(image - knots[0], 0) * slopes[0]
    result += np.maximum(image - knots[-1], 0) * slopes[-1]
    return result.astype(np.float32)


def normalise(
    image: np.ndarray, brain: np.ndarray, measured: np.ndarray, landmarks: np.ndarray
) -> np.ndarray:
    """Standardise an image, then scale the brain to zero mean and unit variance.

    Voxels outside the brain are set to BACKGROUND.

    Args:
      image: (D, H, W), any real dtype.
      brain: (D, H, W) bool.
      measured: (P,), the image's own percentiles from `measure_percentiles`.
      landmarks: (P,), from `fit_landmarks`.

    Returns:
      (D, H, W) float32.
    """
    inside = standardise(image[brain], measured, landmarks)
    mean, deviation = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    result = np.full(image.shape, BACKGROUND, dtype=np.float32)
    result[brain] = (inside - mean) / deviation
    return result
