"""The class of a 3-D image with its geometry.

A grid is a shape (voxels) and an affine (voxel indices to scanner mm). Arrays keep the file's own
axis order (i, j, k), written (D, H, W).
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np


@dataclass(frozen=True)
class Volume:
    """A 3-D image as it is stored in its file."""

    path: Path
    array: np.ndarray  # (D, H, W) float32
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    header: nib.Nifti1Header  # of the file; outputs copy its codes and units
    other_affine: np.ndarray | None = None  # a second geometry in the header, if there is one
    warnings: tuple[str, ...] = ()  # contradictions in the header that matter

    @property
    def is_oriented(self) -> bool:
        """True if the file defines the orientation of the patient. If not, nibabel guesses it."""
        return bool(self.header["sform_code"] or self.header["qform_code"])

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel sides: (3,), in mm."""
        return nib.affines.voxel_sizes(self.affine)
