"""Tiles of a whole volume for inference: how large, where they lie, how they are put together."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from msseg_jax.system.errors import InputError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """How a volume is cut into tiles."""

    tile: Shape  # of a tile, voxels; the network must be able to halve it
    overlap: int  # voxels that neighbouring tiles share
    batch_size: int  # tiles per call of the network


def fit_tile(shape: Shape, largest: int, overlap: int, multiple: int) -> Shape:
    """Return the smallest tile that covers a volume with as few tiles as `largest` ones would.

    Args:
      shape: (D, H, W) of the volume.
      largest: largest side of a tile, voxels.
      overlap: voxels that neighbouring tiles share, less than `largest`.
      multiple: each side of the tile is a multiple of this; so must `largest` be.
    """

    def side(length: int) -> int:
        count = max(1, math.ceil((length - overlap) / (largest - overlap)))
        least = max((length + (count - 1) * overlap) / count, overlap + 1)
        return multiple * math.ceil(least / multiple)

    depth, height, width = shape
    return side(depth), side(height), side(width)


def tile_corners(shape: Shape, tile: Shape, overlap: int) -> list[Shape]:
    """Return the corners of tiles that cover a volume.

    They lie on a regular grid; the last tile is flush with the edge.

    Args:
      shape: (D, H, W). Where it is smaller than a tile, the tile hangs over its end.
      tile: (D, H, W), too.
      overlap: voxels that neighbouring tiles share, or more.

    Raises:
      InputError: the overlap is negative or as large as a tile.
    """
    if not 0 <= overlap < min(tile):
        raise InputError(
            f"overlap is {overlap}; expected 0 to {min(tile) - 1}, less than a tile's side"
        )
    starts = [
        [*range(0, length - side, side - overlap), max(0, length - side)]
        for length, side in zip(shape, tile, strict=True)
    ]
    return list(itertools.product(*starts))


class TileAverage:
    """The average of overlapping tiles: add tiles one by one, then read `mean()`."""

    def __init__(self, shape: Shape):
        self._sum = np.zeros(shape, dtype=np.float32)
        self._count = np.zeros(shape, dtype=np.float32)

    def add(self, tile: np.ndarray, corner: Shape) -> None:
        """Add a (D, H, W) tile that begins at `corner`, less what hangs over the end."""
        box = tuple(slice(c, c + side) for c, side in zip(corner, tile.shape, strict=True))
        inside = self._sum[box]
        inside += tile[tuple(slice(side) for side in inside.shape)]
        self._count[box] += 1

    def mean(self) -> np.ndarray:
        """(D, H, W) float32; 0 where no tile was added."""
        return self._sum / np.maximum(self._count, 1)
