"""A volume with its geometry.

A grid is a shape (voxels) and an affine (voxel indices to scanner mm). Arrays keep the file's own
axis order (i, j, k), written (D, H, W).
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np


@dataclass(frozen=True)
class Volume:
    """A 3-D image as it lies in its file."""

    path: Path
    array: np.ndarray  # (D, H, W) float32
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    header: nib.Nifti1Header  # the file's own, from which outputs take codes and units

    @property
    def is_oriented(self) -> bool:
        """Whether the file says how the patient lies; where not, nibabel guesses."""
        return bool(self.header["sform_code"] or self.header["qform_code"])

    @property
    def spacing_mm(self) -> np.ndarray:  # (3,)
        return nib.affines.voxel_sizes(self.affine)
