"""Turn a volume into axial slices in radiological convention: the patient's right on the left."""

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

# The radiological convention, seen from the feet: slice numbers increase towards the head, rows
# towards the back, and columns towards the patient's left.
ORIENTATION = axcodes2ornt(("S", "P", "L"))
EDGES = {"left": "R", "right": "L", "top": "A", "bottom": "P"}  # edge: patient's side


@dataclass(frozen=True)
class AxialView:
    """Conversion of arrays on one grid to axial slices; oblique axes count as the nearest ones."""

    transform: np.ndarray  # for nibabel, from the grid's axes to (slice, row, column)
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
        """Reorder an array (D, H, W) on the grid to (slices, rows, columns)."""
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
        """Return the scanner z of the centre of a slice."""
        _, rows, columns = self.shape
        middle = (number, (rows - 1) / 2, (columns - 1) / 2)
        return float(nib.affines.apply_affine(self.affine, middle)[2])
