"""Bring arrays from the order of axes in a file into one canonical order, and back.

The network is not invariant to flips and to exchanged axes. Files of one and the same scan may
store its voxels in different orders, so without this step the result would depend on the order.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

# Towards left, posterior and superior: the order of the scans that the released weights were
# trained on.
CANONICAL = ("L", "P", "S")


@dataclass(frozen=True)
class Reordering:
    """Flips and exchanges of axes that bring an array into the canonical order."""

    affine: np.ndarray  # (4, 4), of the file: voxel indices to scanner mm
    shape: tuple[int, ...]  # (D, H, W) of the file

    @property
    def canonical_affine(self) -> np.ndarray:
        """The affine of the reordered array."""
        return self.affine @ inv_ornt_aff(self._forward, self.shape)

    @property
    def canonical_spacing_mm(self) -> np.ndarray:
        """Voxel sides of the reordered array: (3,), in mm."""
        return nib.affines.voxel_sizes(self.affine)[self._axes]

    def forward(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an array of the file (D, H, W) in the canonical order."""
        return apply_orientation(array, self._forward)

    def backward(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an array in the canonical order as (D, H, W) of the file."""
        back = ornt_transform(axcodes2ornt(CANONICAL), io_orientation(self.affine))
        return apply_orientation(array, back)

    @property
    def _forward(self) -> np.ndarray:
        return ornt_transform(io_orientation(self.affine), axcodes2ornt(CANONICAL))

    @property
    def _axes(self) -> np.ndarray:
        """The axis of the file that becomes each canonical axis: (3,)."""
        return np.argsort(self._forward[:, 0])
