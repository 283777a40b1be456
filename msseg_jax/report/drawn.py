"""A pair as the pages draw it."""

from dataclasses import dataclass

import numpy as np

from msseg_jax.report.grey import brightness_of_both
from msseg_jax.volumes.axial_view import AxialView


@dataclass(frozen=True)
class DrawnPair:
    """Both visits in the order of `AxialView` and in the same window. All pictures share them."""

    view: AxialView
    visits: tuple[np.ndarray, np.ndarray]  # (slices, rows, columns), from `brightness_of_both`
    brain: np.ndarray  # (slices, rows, columns) bool

    @staticmethod
    def of(
        visits: tuple[np.ndarray, np.ndarray], brain: np.ndarray, affine: np.ndarray
    ) -> "DrawnPair":
        """Return a pair as it is drawn.

        Args:
          visits: (D, H, W) each.
          brain: (D, H, W) bool.
          affine: (4, 4), voxel indices to mm.
        """
        view = AxialView.of(affine, brain.shape)
        inside = view(brain)
        return DrawnPair(
            view, brightness_of_both((view(visits[0]), view(visits[1])), inside), inside
        )

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel sides along slices, rows and columns: (3,), in mm."""
        return np.linalg.norm(self.view.affine[:3, :3], axis=0)
