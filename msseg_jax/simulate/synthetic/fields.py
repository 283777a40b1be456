"""Smooth random functions on a box of voxels."""

import numpy as np
from scipy.interpolate import BSpline

# Standard deviation of a cubic B-spline on one axis, if its control values are independent and
# standard normal. 151/315 is the integral of the squared basis function.
_AXIS_DEVIATION = np.sqrt(151 / 315)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: np.ndarray, scale_mm: float
) -> np.ndarray:
    """Draw a smooth random function with a length scale of about `scale_mm`.

    It is a cubic B-spline with standard normal control values that are `scale_mm` apart.

    Returns:
      Values of the given shape, float32, with mean 0 and standard deviation of about 1.
    """
    weights = [
        _weights(n, mm / scale_mm, rng.random()) for n, mm in zip(shape, spacing_mm, strict=True)
    ]
    field = rng.standard_normal([w.shape[1] for w in weights])
    for weight in weights:  # tensordot moves the new axis to the end, so axis 0 is always next
        field = np.tensordot(field, weight, axes=(0, 1)).astype(np.float32)
    return field / np.float32(_AXIS_DEVIATION**3)


def _weights(size: int, step: float, phase: float) -> np.ndarray:
    """Return the weight of each control value at each voxel of an axis, (size, n) float32.

    Args:
      size: number of voxels.
      step: distance between voxels, in units of the distance between control values.
      phase: shift of the voxels, in the same unit.
    """
    places = 3 + phase + step * np.arange(size)
    count = int(places[-1]) + 1  # number of basis functions that are not 0 at all voxels
    knots = np.arange(count + 4.0)
    return BSpline.design_matrix(places, knots, 3).toarray().astype(np.float32)
