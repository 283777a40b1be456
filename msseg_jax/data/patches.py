"""Draw the positions of training patches, and cut patches from volumes.

Patch i of a run depends only on (seed, i). Its patient and its position are drawn from generators
that are seeded with (seed, stream, number), so they do not depend on earlier draws.
"""

import functools
from collections.abc import Sequence
from types import EllipsisType

import numpy as np

Shape = tuple[int, int, int]  # voxels along each axis
Corner = tuple[int, int, int]  # indices of the first voxel of a patch; may lie outside the volume

# Streams keep draws for different purposes independent of each other.
_PATIENT_STREAM, _CORNER_STREAM, AUGMENTATION_STREAM = 0, 1, 2

# Of the patches that are placed on lesions, if there are new and other ones. New lesions matter
# most, but the rarer kinds must be seen, too.
NEW_SHARE = 0.5


def draw_patient(seed: int, index: int, patients: int) -> int:
    """Return the number, from 0, of the patient from whom patch `index` of a run is cut.

    A run visits all patients in rounds, and shuffles them for each round. Every patient gives one
    patch per round, so a batch contains as many different patients as possible.
    """
    round_, position = divmod(index, patients)
    return int(_round_order(seed, round_, patients)[position])


@functools.lru_cache(64)  # consecutive patches need the same round
def _round_order(seed: int, round_: int, patients: int) -> np.ndarray:
    return np.random.default_rng((seed, _PATIENT_STREAM, round_)).permutation(patients)


def draw_corner(
    seed: int,
    index: int,
    size: int,
    lesion_kinds: Sequence[np.ndarray],
    brain: np.ndarray,
    lesion_probability: float,
) -> Corner:
    """Draw the first voxel of patch `index`. The patch may extend beyond the volume on any side.

    If there are lesions, then with probability `lesion_probability` a kind of lesion is drawn, and
    one of its voxels uniformly, and the patch is drawn uniformly among the patches that contain
    this voxel. In all other cases, the patch is centred on a brain voxel that is drawn uniformly.

    Args:
      size: side of a patch, voxels.
      lesion_kinds: voxel indices of each kind of lesion, (L, 3) int each. The first kind, the new
        lesions, is drawn in half of the cases; the others share the rest. Kinds without a voxel do
        not count.
      brain: (D, H, W) bool, at least one voxel true.
    """
    generator = np.random.default_rng((seed, _CORNER_STREAM, index))
    if any(map(len, lesion_kinds)) and generator.random() < lesion_probability:
        lesion_voxels = _draw_kind(generator, lesion_kinds)
        voxel = lesion_voxels[generator.integers(len(lesion_voxels))]
        return _corner(voxel - generator.integers(size, size=3))
    while True:  # about two tries on average: the brain fills about half of its bounding box
        voxel = generator.integers(brain.shape)
        if brain[tuple(voxel)]:
            return _corner(voxel - size // 2)


def _draw_kind(generator: np.random.Generator, kinds: Sequence[np.ndarray]) -> np.ndarray:
    """Draw a kind of lesion that has voxels, and return its voxels."""
    new, others = kinds[0], [kind for kind in kinds[1:] if len(kind)]
    # Nothing is drawn if there is no choice. So a run with a single kind keeps its patches.
    if not others or (len(new) and generator.random() < NEW_SHARE):
        return new
    return others[generator.integers(len(others)) if len(others) > 1 else 0]


def _corner(voxel: np.ndarray) -> Corner:
    d, h, w = voxel.tolist()
    return d, h, w


def crop(
    array: np.ndarray,
    corner: Corner,
    shape: Shape,
    fill: float,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Copy the part (..., *shape) of an array (..., D, H, W) that begins at `corner`.

    Args:
      fill: value for voxels outside the array.
      out: (..., *shape), the array to write to. None: a new array is created.
    """
    if out is None:
        out = np.empty((*array.shape[:-3], *shape), dtype=array.dtype)
    source: list[slice] = []
    target: list[slice] = []
    for start, side, length in zip(corner, shape, array.shape[-3:], strict=True):
        first, last = max(start, 0), min(start + side, length)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - start, max(first, last) - start))
    if any(part.stop - part.start < side for part, side in zip(source, shape, strict=True)):
        out[...] = fill
    read: tuple[EllipsisType | slice, ...] = (..., *source)
    written: tuple[EllipsisType | slice, ...] = (..., *target)
    out[written] = array[read]
    return out
