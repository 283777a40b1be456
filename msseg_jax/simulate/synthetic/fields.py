"""Smooth random functions on a box of voxels."""

import numpy as np
from scipy.interpolate import BSpline

# Deviation of a cubic B-spline with independent normal control values, mean over one axis.
_AXIS_DEVIATION = np.sqrt(151 / 315)  # the integral of the basis function's square


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: np.ndarray, scale_mm: float
) -> np.ndarray:
    """A function that varies over about `scale_mm`: shape, float32, mean 0, deviation about 1.

    A cubic B-spline whose control values are normally distributed, and `scale_mm` apart.
    """
    weights = [
        _weights(n, mm / scale_mm, rng.random()) for n, mm in zip(shape, spacing_mm, strict=True)
    ]
    field = rng.standard_normal([w.shape[1] for w in weights])
    for weight in weights:  # each moves the axis that it has filled to the end
        field = np.tensordot(field, weight, axes=(0, 1)).astype(np.float32)
    return field / np.float32(_AXIS_DEVIATION**3)


def _weights(size: int, step: float, phase: float) -> np.ndarray:
    """Of each control value on each voxel of an axis, `step` of their distance apart: (size, n)."""
    places = 3 + phase + step * np.arange(size)
    count = int(places[-1]) + 1  # of basis functions that bear on some voxel
    knots = np.arange(count + 4.0)
    return BSpline.design_matrix(places, knots, 3).toarray().astype(np.float32)
