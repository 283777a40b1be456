"""Patches for training and tiles for inference: where they lie, how they are cut and put back.

Training: patch i of a run is a function of (seed, i) alone. Which patient it is from and where it
lies are drawn from generators seeded with (seed, stream, number), whatever was drawn before.
"""

import itertools

import numpy as np

from msseg_jax.errors import InputError

# Streams keep draws for different purposes independent of each other.
_PATIENT_STREAM, _CORNER_STREAM = 0, 1


def draw_patient(seed: int, index: int, patients: int) -> int:
    """The patient, 0 to patients - 1, that patch `index` of a run is from.

    The run goes through the patients in rounds, each round in an order of its own: every patient
    gives one patch per round, and a batch holds as many patients as it can.
    """
    round_, position = divmod(index, patients)
    order = np.random.default_rng((seed, _PATIENT_STREAM, round_)).permutation(patients)
    return int(order[position])


def draw_corner(
    seed: int,
    index: int,
    size: int,
    lesion_voxels: np.ndarray,
    brain: np.ndarray,
    lesion_probability: float,
) -> tuple[int, int, int]:
    """The first voxel of patch `index`; it may lie outside the volume, as may the patch's end.

    With `lesion_probability`, where there are new lesions: one of their voxels, drawn uniformly,
    and then a patch drawn uniformly among those that contain it. Otherwise a patch centred on a
    voxel of the brain, drawn uniformly.

    Args:
      size: side of a patch, voxels.
      lesion_voxels: (L, 3) int, the new-lesion voxels of the consensus.
      brain: (D, H, W) bool, at least one voxel true.
    """
    generator = np.random.default_rng((seed, _CORNER_STREAM, index))
    if len(lesion_voxels) and generator.random() < lesion_probability:
        voxel = lesion_voxels[generator.integers(len(lesion_voxels))]
        return tuple(int(v) for v in voxel - generator.integers(size, size=3))
    while True:  # the brain fills about half of its bounding box: two tries on average
        voxel = generator.integers(brain.shape)
        if brain[tuple(voxel)]:
            return tuple(int(v) for v in voxel - size // 2)


def crop(array: np.ndarray, corner: tuple[int, int, int], size: int, fill: float) -> np.ndarray:
    """A copy of (..., size, size, size) from (..., D, H, W) at `corner`, `fill` outside it."""
    patch = np.full((*array.shape[:-3], *(size,) * 3), fill, dtype=array.dtype)
    source, target = [], []
    for start, side in zip(corner, array.shape[-3:], strict=True):
        first, last = max(start, 0), min(start + size, side)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - start, max(first, last) - start))
    patch[(..., *target)] = array[(..., *source)]
    return patch


def tile_corners(shape: tuple[int, int, int], size: int, overlap: int) -> list[tuple[int, ...]]:
    """Corners of the tiles that cover a volume: a regular grid, the last tile flush with the edge.

    Args:
      shape: (D, H, W), each at least `size`.
      size, overlap: voxels along each side; neighbouring tiles share `overlap` or more.

    Raises:
      InputError: the overlap is negative or as large as a tile, or the volume smaller than a tile.
    """
    if not 0 <= overlap < size:
        raise InputError(f"overlap is {overlap}; wanted 0 to {size - 1}, less than a tile's side")
    if min(shape) < size:
        raise InputError(f"the volume has {tuple(shape)} voxels; wanted at least {size} per side")
    starts = []
    for side in shape:
        regular = list(range(0, side - size, size - overlap))
        starts.append([*regular, side - size])
    return list(itertools.product(*starts))


class TileAverage:
    """The average of overlapping tiles: add tiles one by one, then read `mean()`."""

    def __init__(self, shape: tuple[int, int, int]):
        self._sum = np.zeros(shape, dtype=np.float32)
        self._count = np.zeros(shape, dtype=np.float32)

    def add(self, tile: np.ndarray, corner: tuple[int, int, int]) -> None:
        """Add a (size, size, size) tile that lies inside the volume at `corner`."""
        box = tuple(slice(c, c + n) for c, n in zip(corner, tile.shape, strict=True))
        self._sum[box] += tile
        self._count[box] += 1

    def mean(self) -> np.ndarray:
        """(D, H, W) float32; 0 where no tile was added."""
        return self._sum / np.maximum(self._count, 1)
