"""Resample between grids that share their axes, their centre and their field of view."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msseg_jax.system.errors import InputError

# A grid with more voxels than both allow is due to wrong voxel sizes, and would fill the memory.
PLAUSIBLE_VOXELS = 2**25  # 256 mm along each axis with voxels of 0.8 mm
MOST_FINER = 100  # ratio of the numbers of voxels; slices of 6 mm to 0.5 mm: 48

# ---------------------------------------------------------------------------- resampling


@dataclass(frozen=True)
class Resampling:
    """Resampling from one grid to another with the same axes, centre and field of view, and back.

    Because the axes are the same, linear interpolation in 3-D is done by three passes in 1-D.
    """

    old_shape: tuple[int, ...]  # 3 numbers
    new_shape: tuple[int, ...]
    scale: np.ndarray  # (3,), new voxel side / old voxel side

    def forward(self, array: np.ndarray) -> np.ndarray:
        """Resample linearly from the old grid (D, H, W) to the new (D', H', W'), both float32."""
        return _along_each_axis(_linear, array, self._old_positions())

    def backward(self, array: np.ndarray) -> np.ndarray:
        """Resample linearly from the new grid to the old one."""
        return _along_each_axis(_linear, array, self._new_positions())

    def forward_labels(self, array: np.ndarray) -> np.ndarray:
        """Resample any dtype from the old grid to the new one, by the nearest voxel."""
        return _along_each_axis(_nearest, array, self._old_positions())

    def new_affine(self, old_affine: np.ndarray) -> np.ndarray:
        """Return the affine of the new grid, given the affine of the old grid.

        Both are (4, 4), voxel indices to scanner mm.
        """
        to_old = np.diag([*self.scale, 1.0])
        to_old[:3, 3] = [positions[0] for positions in self._old_positions()]
        return old_affine @ to_old

    def _old_positions(self) -> list[np.ndarray]:
        """Return the positions of the new grid's voxels on the old grid, for each axis.

        The centres of the grids coincide.
        """
        return [
            (np.arange(new) - (new - 1) / 2) * scale + (old - 1) / 2
            for new, old, scale in zip(self.new_shape, self.old_shape, self.scale, strict=True)
        ]

    def _new_positions(self) -> list[np.ndarray]:
        return [
            (np.arange(old) - (old - 1) / 2) / scale + (new - 1) / 2
            for new, old, scale in zip(self.new_shape, self.old_shape, self.scale, strict=True)
        ]


def _along_each_axis(
    interpolate: Callable[[np.ndarray, int, np.ndarray], np.ndarray],
    array: np.ndarray,
    positions: list[np.ndarray],
) -> np.ndarray:
    # The axis that shrinks most comes first, so that the later passes have less to do.
    order = np.argsort([len(p) / n for p, n in zip(positions, array.shape, strict=True)])
    for axis in order:
        # Beyond the outermost voxel centres, the image continues with its outermost values.
        inside = np.clip(positions[axis], 0, array.shape[axis] - 1)
        array = interpolate(array, int(axis), inside)
    return array


def _linear(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, array.shape[axis] - 1)
    column = [1, 1, 1]
    column[axis] = -1
    weight = (positions - below).astype(array.dtype).reshape(column)
    # In place, because these arrays may be large.
    result = np.take(array, above, axis)
    result *= weight
    lower = np.take(array, below, axis)
    lower *= 1 - weight
    result += lower
    return result


def _nearest(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    return np.take(array, np.rint(positions).astype(int), axis)


def resampling_to(
    spacing_mm: float, shape: tuple[int, ...], old_spacing_mm: np.ndarray
) -> Resampling:
    """Return the resampling from a grid of `shape` voxels to isotropic voxels of `spacing_mm`.

    The new grid has the same centre and the fewest voxels that cover the old field of view.

    Raises:
      InputError: the new grid would be implausibly large. The message does not name the file.
    """
    extent_mm = np.asarray(shape) * old_spacing_mm
    new_shape = np.ceil(extent_mm / spacing_mm - 1e-6)  # 1e-6: 56.0000001 voxels are 56
    count = float(np.prod(np.maximum(new_shape, 1)))  # a side may be 0, if voxels are tiny
    if count > max(PLAUSIBLE_VOXELS, MOST_FINER * float(np.prod(shape))):
        sides = ", ".join(f"{mm:.6g}" for mm in old_spacing_mm)
        raise InputError(
            f"{tuple(shape)} voxels of ({sides}) mm would become "
            f"{count:.3g} voxels of {spacing_mm:g} mm. Expected at most "
            f"{MOST_FINER} times as many, or {PLAUSIBLE_VOXELS}. Check the voxel size in the "
            "header, and the spacing."
        )
    return Resampling(
        tuple(int(n) for n in shape),
        tuple(int(n) for n in new_shape),
        spacing_mm / np.asarray(old_spacing_mm, dtype=np.float64),
    )
