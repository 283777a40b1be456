"""Smooth functions on a patch: uniform cubic B-splines over a coarse grid of control values.

A B-spline is a weighted mean of control values, so it never goes beyond the largest of them. Where
they are drawn independently it stays well within: of the most that could be, the largest of a patch
of `configs/msseg2.py` is mostly about 0.6 with 4 cells (of three axes), a third with 1
(`tests/test_augmentation.py`).
"""

import functools

import numpy as np

SUPPORT = 4  # control values along each axis that bear on a point


def control_points(cells: int) -> int:
    """Control values along an axis that `cells` equal parts of it need."""
    return cells + SUPPORT - 1


def cells(control: np.ndarray) -> int:
    """Parts of an axis that control values (..., n, n, n) belong to."""
    return control.shape[-1] - SUPPORT + 1


def spline_field(control: np.ndarray, size: int) -> np.ndarray:
    """Control values (..., n, n, n) to values at voxel centres, (..., size, size, size) float32.

    The `cells` of the control grid cover the patch along each axis.
    """
    weights = _weights(size, control.shape[-1])  # (size, n)
    *outer, n, _, _ = control.shape
    # Axis by axis, as a spline's weights are products; the first while the array is small.
    field = weights @ control.astype(np.float32).reshape(*outer, n, n * n)
    field = weights @ field.reshape(*outer, size, n, n)
    return field @ weights.T


@functools.lru_cache(16)
def _weights(size: int, n: int) -> np.ndarray:
    place = (np.arange(size) + 0.5) / size * (n - SUPPORT + 1)
    cell = place.astype(int)
    t = place - cell
    pieces = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    weights = np.zeros((size, n), np.float32)
    weights[np.arange(size)[:, None], cell[:, None] + np.arange(SUPPORT)] = pieces / 6
    return weights
