"""Say on which side of the patient a point lies."""

import numpy as np
from nibabel.affines import apply_affine

from msseg_jax.volumes.axial_view import AxialView

MIDLINE_MM = 5.0  # points nearer to the middle of the brain mask are neither left nor right


def sides_of(points_mm: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> list[str]:
    """Return the patient's side on which each point lies: 'left', 'right' or 'middle'.

    Args:
      points_mm: (N, 3), scanner mm.
      brain: (D, H, W) bool, the whole brain.
      affine: (4, 4), voxel indices of the brain to scanner mm.
    """
    middle = apply_affine(affine, np.argwhere(brain).mean(axis=0))
    # The horizontal direction of the pictures, so that the stated side matches the pictures on an
    # oblique grid, too.
    to_right = -AxialView.of(affine, brain.shape).affine[:3, 2]
    offsets_mm = (points_mm - middle) @ (to_right / np.linalg.norm(to_right))
    return [side_of(offset) for offset in offsets_mm]


def side_of(offset_mm: float) -> str:
    """Return the patient's side on which a point lies, `offset_mm` to the right of the middle."""
    if abs(offset_mm) < MIDLINE_MM:
        return "middle"
    return "right" if offset_mm > 0 else "left"
