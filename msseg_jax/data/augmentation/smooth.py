"""Smooth functions on a patch: uniform cubic B-splines over a coarse grid of control values.

A B-spline is a weighted mean of its control values, so it never exceeds the largest of them. If
the control values are drawn independently up to a limit, it stays well below that limit. With the
patch size of `configs/msseg2.py`, the largest absolute value is typically about 0.6 of the limit
for 4 cells (the largest of three components), and about a third of it for 1 cell
(`tests/data/test_augmentation.py`).
"""

import functools

import numpy as np

SUPPORT = 4  # number of control values along each axis that influence a point


def control_points(cells: int) -> int:
    """Return the number of control values along an axis that is divided into `cells` parts."""
    return cells + SUPPORT - 1


def cells(control: np.ndarray) -> int:
    """Return the number of parts of an axis that has n control values, from (..., n, n, n)."""
    return control.shape[-1] - SUPPORT + 1


def spline_field(control: np.ndarray, size: int) -> np.ndarray:
    """Return the spline's values at the centres of voxels, (..., size, size, size) float32.

    Args:
      control: (..., n, n, n) control values. The parts of an axis (see `cells`) cover the patch.
    """
    weights = _weights(size, control.shape[-1])  # (size, n)
    *outer, n, _, _ = control.shape
    # One axis at a time: the weights in 3-D are products of the weights along each axis.
    field = weights @ control.astype(np.float32).reshape(*outer, n, n * n)
    field = weights @ field.reshape(*outer, size, n, n)
    return field @ weights.T


@functools.lru_cache(16)
def _weights(size: int, n: int) -> np.ndarray:
    """Return the weight of each of n control values in each of `size` voxels, (size, n) float32."""
    place = (np.arange(size) + 0.5) / size * (n - SUPPORT + 1)
    cell = place.astype(int)
    t = place - cell
    pieces = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    weights = np.zeros((size, n), np.float32)
    weights[np.arange(size)[:, None], cell[:, None] + np.arange(SUPPORT)] = pieces / 6
    return weights
