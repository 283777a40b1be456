"""Pack both visits and their lesions into the page, for the viewer.

The volumes have 8 bits per voxel and are cropped to the brain and MARGIN_MM around it. They are
stored as differences between neighbours, which the browser sums up, and compressed.
"""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from scipy import ndimage

from msseg_jax.report.drawn import DrawnPair
from msseg_jax.report.grey import to_grey
from msseg_jax.volumes.grids import bounding_box, with_margin
from msseg_jax.volumes.lesions import voxels_by_number

MARGIN_MM = 12.0  # around the brain
# Larger volumes get larger voxels. A page has at most 12 MB, of which the pictures take up to 4.5.
MOST_VOXELS = 4_500_000  # of one visit
MOST_CHARACTERS = 7_000_000  # of both visits in the page; noise cannot be compressed
MOST_LABEL = np.iinfo(np.uint16).max  # further lesions are not drawn
FEWER = 0.8  # voxels, relative to the attempt before, until the page is small enough


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


def pack(pair: DrawnPair, labels: np.ndarray) -> Packed:
    """Pack a pair.

    Args:
      pair: the pair as it is drawn.
      labels: (D, H, W) int on the grid of the pair, the lesions of all classes, numbered.
    """
    seen = pair.view(np.where(labels <= MOST_LABEL, labels, 0))
    margins = np.ceil(MARGIN_MM / pair.spacing_mm).astype(int)
    box = with_margin(bounding_box(pair.brain | (seen > 0)), margins, seen.shape)
    greys = [to_grey(visit[box]) for visit in pair.visits]
    numbers = seen[box].astype(np.uint16)
    corner = pair.view.affine @ from_matvec(np.eye(3), [side.start for side in box])
    most_voxels = float(MOST_VOXELS)
    while True:
        step = _step(numbers.shape, pair.spacing_mm, most_voxels)
        packed = _pack_coarser(greys, numbers, corner, step)
        if sum(map(len, packed.visits)) <= MOST_CHARACTERS:
            return packed
        most_voxels = FEWER * min(most_voxels, numbers.size)


def _pack_coarser(
    greys: list[np.ndarray], numbers: np.ndarray, affine: np.ndarray, step: np.ndarray
) -> Packed:
    """Pack volumes with voxels that are `step` times as large along each axis."""
    # The first voxel of the coarser grid has the same outer corner as that of the finer one.
    packed_affine = affine @ from_matvec(np.diag(step), (step - 1) / 2)
    if (step != 1).any():
        greys = [_coarser(grey, step, order=1) for grey in greys]
        fine, numbers = numbers, _coarser(numbers, step, order=0)
        left = set(np.unique(numbers).tolist())
        for number, voxels in voxels_by_number(fine).items():
            if number not in left:  # a small lesion between the voxels of the coarser grid
                place = np.rint((voxels.mean(axis=0) - (step - 1) / 2) / step).astype(int)
                numbers[tuple(np.clip(place, 0, np.array(numbers.shape) - 1))] = number
    first, second = (_packed(np.diff(grey.ravel(), prepend=np.uint8(0))) for grey in greys)
    slice_mm, row_mm, column_mm = np.linalg.norm(packed_affine[:3, :3], axis=0).tolist()
    return Packed(
        numbers.shape, (slice_mm, row_mm, column_mm), packed_affine, (first, second),
        _packed(numbers.astype("<u2")),
    )  # fmt: skip


def _step(shape: tuple[int, ...], spacing_mm: np.ndarray, most_voxels: float) -> np.ndarray:
    """Return by how much the voxels must grow along each axis: (3,), 1 or more.

    The smallest sides grow first, so that the voxels become more alike.
    """
    extent_mm = np.array(shape) * spacing_mm
    side_mm = float(spacing_mm.min())
    while np.prod(np.ceil(extent_mm / np.maximum(spacing_mm, side_mm))) > most_voxels:
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
