"""A volume as a radiologist expects to see it: axial slices, the patient's right on the left."""

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

# Seen from the feet, the radiological convention: slices go up to the head, rows from the front to
# the back, columns from the patient's right to the left. These are the directions of growth.
ORIENTATION = axcodes2ornt(("S", "P", "L"))
EDGES = {"left": "R", "right": "L", "top": "A", "bottom": "P"}  # of the picture: patient's side


@dataclass(frozen=True)
class AxialView:
    """How arrays of one grid become axial slices; an oblique grid by its nearest axes."""

    transform: np.ndarray  # nibabel's, from the grid's axes to (slice, row, column)
    affine: np.ndarray  # (4, 4), (slice, row, column) to scanner mm
    shape: tuple[int, int, int]  # slices, rows, columns

    @staticmethod
    def of(affine: np.ndarray, shape: tuple[int, int, int]) -> "AxialView":
        """Return the view of a grid."""
        transform = ornt_transform(io_orientation(affine), ORIENTATION)
        slices, rows, columns = (shape[axis] for axis in np.argsort(transform[:, 0]))
        return AxialView(
            transform, affine @ inv_ornt_aff(transform, shape), (slices, rows, columns)
        )

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Turn (D, H, W) on the grid into (slices, rows, columns)."""
        return apply_orientation(array, self.transform)

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Height of a row and width of a column."""
        _, row, column = nib.affines.voxel_sizes(self.affine)
        return float(row), float(column)

    @property
    def tilt_degrees(self) -> float:
        """The largest angle between an axis of the grid and the scanner's axis nearest to it."""
        return float(np.degrees(nib.affines.obliquity(self.affine).max()))

    def height_mm(self, number: int) -> float:
        """Return the scanner z of the middle of a slice."""
        _, rows, columns = self.shape
        middle = (number, (rows - 1) / 2, (columns - 1) / 2)
        return float(nib.affines.apply_affine(self.affine, middle)[2])
