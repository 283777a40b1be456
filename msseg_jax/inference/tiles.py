"""Tiles for inference: choose their size, place them on a volume, and average their results."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from msseg_jax.system.errors import InputError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """The sizes of the tiles and batches into which a volume is cut."""

    tile: Shape  # voxels, multiples of the network's `side_multiple`
    overlap: int  # voxels, overlap of neighbouring tiles
    batch_size: int  # tiles per call of the network


def fit_tile(shape: Shape, largest: int, overlap: int, multiple: int) -> Shape:
    """Return the smallest tile with which a volume needs no more tiles than with the largest tile.

    Args:
      shape: (D, H, W) of the volume.
      largest: largest side of a tile, voxels; a multiple of `multiple`.
      overlap: overlap of neighbouring tiles, voxels; less than `largest`.
      multiple: each side of the tile is a multiple of this number of voxels.
    """

    def side(length: int) -> int:
        count = max(1, math.ceil((length - overlap) / (largest - overlap)))
        least = max((length + (count - 1) * overlap) / count, overlap + 1)
        return multiple * math.ceil(least / multiple)

    depth, height, width = shape
    return side(depth), side(height), side(width)


def tile_corners(shape: Shape, tile: Shape, overlap: int) -> list[Shape]:
    """Return the corners of tiles that cover a volume.

    The tiles lie on a regular grid, but the last tile along each axis ends at the edge of the
    volume, so it may overlap more.

    Args:
      shape: (D, H, W) of the volume. If it is smaller than a tile, the tile extends beyond its end.
      tile: (D, H, W) of a tile.
      overlap: least overlap of neighbouring tiles, voxels.

    Raises:
      InputError: the overlap is negative or as large as a tile.
    """
    if not 0 <= overlap < min(tile):
        raise InputError(
            f"overlap is {overlap}; expected 0 to {min(tile) - 1} voxels, less than a tile's side"
        )
    starts = [
        [*range(0, length - side, side - overlap), max(0, length - side)]
        for length, side in zip(shape, tile, strict=True)
    ]
    return list(itertools.product(*starts))


class TileAverage:
    """The average of overlapping tiles. Add the tiles one by one, then call `mean()` once."""

    def __init__(self, map_count: int, shape: Shape):
        self._sum = np.zeros((map_count, *shape), dtype=np.float32)
        self._count = np.zeros(shape, dtype=np.float32)

    def add(self, tile: np.ndarray, corner: Shape) -> None:
        """Add the maps (T, D, H, W) of a tile that begins at `corner`.

        The part of the tile beyond the volume is ignored.
        """
        box = tuple(slice(c, c + side) for c, side in zip(corner, tile.shape[1:], strict=True))
        inside = self._sum[:, *box]
        inside += tile[:, *(slice(side) for side in inside.shape[1:])]
        self._count[box] += 1

    def mean(self) -> np.ndarray:
        """Return the average, (T, D, H, W) float32; it is 0 where no tile was added."""
        self._sum /= np.maximum(self._count, 1)  # in place, because the maps may be large
        return self._sum
