"""Patches for training: where they lie, and how they are cut.

Patch i of a run is a function of (seed, i) alone. Which patient it is from and where it lies are
drawn from generators seeded with (seed, stream, number), whatever was drawn before.
"""

import functools

import numpy as np

# Streams keep draws for different purposes independent of each other.
_PATIENT_STREAM, _CORNER_STREAM, AUGMENTATION_STREAM = 0, 1, 2


def draw_patient(seed: int, index: int, patients: int) -> int:
    """The patient, 0 to patients - 1, that patch `index` of a run is from.

    The run goes through the patients in rounds, each round in an order of its own: every patient
    gives one patch per round, and a batch holds as many patients as it can.
    """
    round_, position = divmod(index, patients)
    return int(_round_order(seed, round_, patients)[position])


@functools.lru_cache(64)  # a round's patches are asked for one after another
def _round_order(seed: int, round_: int, patients: int) -> np.ndarray:
    return np.random.default_rng((seed, _PATIENT_STREAM, round_)).permutation(patients)


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


def crop(
    array: np.ndarray,
    corner: tuple[int, int, int],
    shape: tuple[int, int, int],
    fill: float,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of (..., *shape) from (..., D, H, W) at `corner`, `fill` outside it.

    Args:
      out: (..., *shape), to be written to; None: a new array.
    """
    if out is None:
        out = np.empty((*array.shape[:-3], *shape), dtype=array.dtype)
    source, target = [], []
    for start, side, length in zip(corner, shape, array.shape[-3:], strict=True):
        first, last = max(start, 0), min(start + side, length)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - start, max(first, last) - start))
    if any(part.stop - part.start < side for part, side in zip(source, shape, strict=True)):
        out[...] = fill
    out[(..., *target)] = array[(..., *source)]
    return out
