"""Compare grids, and find the bounding box of a mask."""

import nibabel as nib
import numpy as np

from msseg_jax.volumes.volume import Volume

GRID_TOLERANCE_MM = 0.05  # corners that are further apart belong to different grids


def grid_difference(one: Volume, other: Volume) -> str | None:
    """Return a message if two volumes are on different grids, and None if they are on the same."""
    if one.array.shape != other.array.shape:
        return (
            f"{other.path} has {other.array.shape} voxels, but {one.path} has {one.array.shape}. "
            "Expected one grid for both. Resample one onto the other."
        )
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in one.array.shape])).reshape(3, 8).T
    at = nib.affines.apply_affine(other.affine, corners)
    # A program may have given `other` the affine of `one` that is not used here.
    affines = [affine for affine in (one.affine, one.other_affine) if affine is not None]
    furthest_mm = min(
        float(np.linalg.norm(nib.affines.apply_affine(affine, corners) - at, axis=1).max())
        for affine in affines
    )
    if furthest_mm > GRID_TOLERANCE_MM:
        return (
            f"{other.path} lies up to {furthest_mm:.2f} mm away from {one.path} (their affines "
            f"differ). Expected at most {GRID_TOLERANCE_MM} mm. Register and resample one onto the "
            "other."
        )
    return None


def with_margin(
    box: tuple[slice, ...], margin_voxels: np.ndarray | list[int], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """Return a box that is larger on each side by a margin, but not larger than the array.

    Args:
      box: a slice for each axis.
      margin_voxels: the margin along each axis.
      shape: shape of the array.
    """
    return tuple(
        slice(max(side.start - margin, 0), min(side.stop + margin, length))
        for side, margin, length in zip(box, margin_voxels, shape, strict=True)
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the smallest box that contains all true voxels of a (D, H, W) mask.

    The box is empty if there are none.
    """

    def side(axis: int) -> slice:
        others = tuple(k for k in range(3) if k != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        return slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0)

    return side(0), side(1), side(2)
