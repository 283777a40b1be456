"""Compare grids, and find the part of a grid that a mask fills."""

import nibabel as nib
import numpy as np

from msseg_jax.volumes.volume import Volume

GRID_TOLERANCE_MM = 0.05  # corners further apart than this are on different grids


def grid_difference(one: Volume, other: Volume) -> str | None:
    """What keeps two volumes from being on one grid, in words; None if nothing does."""
    if one.array.shape != other.array.shape:
        return (
            f"{other.path} has {other.array.shape} voxels, {one.path} has {one.array.shape}; "
            "expected one grid for both: resample one onto the other"
        )
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in one.array.shape])).reshape(3, 8)
    apart = nib.affines.apply_affine(one.affine, corners.T) - nib.affines.apply_affine(
        other.affine, corners.T
    )
    furthest_mm = float(np.linalg.norm(apart, axis=1).max())
    if furthest_mm > GRID_TOLERANCE_MM:
        return (
            f"{other.path} lies up to {furthest_mm:.2f} mm away from {one.path} (their affines "
            f"differ); expected at most {GRID_TOLERANCE_MM} mm: register and resample one onto the "
            "other"
        )
    return None


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds every true voxel of a (D, H, W) mask.

    It is empty if there is none.
    """

    def side(axis: int) -> slice:
        others = tuple(k for k in range(3) if k != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        return slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0)

    return side(0), side(1), side(2)
