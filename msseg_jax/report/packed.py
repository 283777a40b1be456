"""Pack both visits and their lesions into the page, for the viewer.

The volumes have 8 bits per voxel and are cropped to the brain and MARGIN_MM around it. Each row of
voxels is stored as differences between neighbours, which the browser sums up, and compressed.
"""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from scipy import ndimage

from msseg_jax.report.grey import brightness, to_grey
from msseg_jax.volumes.axial_view import AxialView
from msseg_jax.volumes.grids import bounding_box, with_margin

MARGIN_MM = 12.0  # around the brain
# Voxels of one visit. Both visits of this size take about 9 MB in the page, less than its limit of
# 12 MB. Larger volumes get larger voxels.
MOST_VOXELS = 4_500_000


@dataclass(frozen=True)
class Packed:
    """Volumes for the viewer. The axes are slice, row and column, as in `AxialView`."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray  # (4, 4), voxel indices to mm of the pair
    visits: tuple[str, str]  # base64
    labels: str  # base64 of uint16

    def voxel_of(self, point_mm: np.ndarray) -> list[int]:
        """Return the voxel that contains a point, (3,) mm of the pair."""
        indices = apply_affine(np.linalg.inv(self.affine), point_mm)
        limits = np.array(self.shape) - 1
        return np.clip(np.rint(indices), 0, limits).astype(int).tolist()


def pack(
    visits: tuple[np.ndarray, np.ndarray], brain: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> Packed:
    """Pack a pair.

    Args:
      visits: (D, H, W) each.
      brain: (D, H, W) bool.
      labels: (D, H, W) int, the lesions of all classes, numbered.
      affine: (4, 4), voxel indices to mm.
    """
    view = AxialView.of(affine, brain.shape)
    spacing_mm = np.linalg.norm(view.affine[:3, :3], axis=0)
    inside = view(brain)
    margins = np.ceil(MARGIN_MM / spacing_mm).astype(int)
    box = with_margin(bounding_box(inside | (view(labels) > 0)), margins, inside.shape)
    shape = tuple(side.stop - side.start for side in box)
    step = _step(shape, spacing_mm)
    corner = np.array([side.start for side in box])
    # The first voxel of the coarser grid has the same outer corner as that of the finer one.
    packed_affine = view.affine @ from_matvec(np.diag(step), corner + (step - 1) / 2)
    greys = []
    for visit in visits:
        grey = to_grey(brightness(view(visit), inside)[box])
        greys.append(grey if (step == 1).all() else _coarser(grey, step, order=1))
    numbers = view(labels)[box].astype(np.uint16)
    if (step != 1).any():
        numbers = _coarser(numbers, step, order=0)
    first, second = (_packed(np.diff(grey.ravel(), prepend=np.uint8(0))) for grey in greys)
    slice_mm, row_mm, column_mm = (spacing_mm * step).tolist()
    return Packed(
        greys[0].shape, (slice_mm, row_mm, column_mm), packed_affine, (first, second),
        _packed(numbers.astype("<u2")),
    )  # fmt: skip


def _step(shape: tuple[int, ...], spacing_mm: np.ndarray) -> np.ndarray:
    """Return by how much the voxels must grow along each axis: (3,), 1 or more.

    The smallest sides grow first, so that the voxels become more alike.
    """
    extent_mm = np.array(shape) * spacing_mm
    side_mm = float(spacing_mm.min())
    while np.prod(np.ceil(extent_mm / np.maximum(spacing_mm, side_mm))) > MOST_VOXELS:
        side_mm *= 1.02
    return np.maximum(spacing_mm, side_mm) / spacing_mm


def _coarser(array: np.ndarray, step: np.ndarray, order: int) -> np.ndarray:
    """Return an array on voxels that are `step` times as large along each axis."""
    shape = tuple(np.maximum(1, np.ceil(np.array(array.shape) / step)).astype(int))
    return ndimage.affine_transform(
        array, step, (step - 1) / 2, output_shape=shape, order=order, mode="nearest"
    )


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
