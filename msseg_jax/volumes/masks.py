"""Check that a volume is the mask that it should be."""

from pathlib import Path

import numpy as np

from msseg_jax.volumes.volume import Volume

MAX_LABELS = 256  # of a mask, with 0; FreeSurfer's maps of the whole brain have up to about 200


def mask_problem(name: Path | str, array: np.ndarray) -> str | None:
    """What keeps an array from being a binary mask, in words; None if nothing does."""
    wrong = array[(array != 0) & (array != 1)]
    if not wrong.size:
        return None
    if (wrong == np.rint(wrong)).all():
        cure = "it looks like a label map: keep the new lesions alone, as 1"
    elif wrong.min() >= 0 and wrong.max() <= 1:
        cure = "it looks like a probability map: threshold it"
    else:
        cure = "make it binary"
    return (
        f"{name}: {wrong.size} voxels have values other than 0 and 1, {wrong[0]:g} for one; "
        f"expected a mask of the new lesions alone: {cure}"
    )


def brain_mask_problem(mask: Volume, visits: tuple[Volume | None, ...] = ()) -> str | None:
    """What keeps a volume from being a brain mask, or a map of the brain's parts, in words."""
    expected = "expected a brain mask, 1 inside and 0 outside"
    if (mask.array != np.rint(mask.array)).any():
        return (
            f"{mask.path}: has values that are no whole numbers; {expected}: it looks like a "
            "probability map or an image; threshold it, or give the mask"
        )
    for visit in filter(None, visits):
        if np.array_equal(mask.array, visit.array):
            return f"{mask.path} and {visit.path} hold the same voxels; {expected}: give the mask"
    # Of whole numbers; so only where they are far apart do they need to be counted, which is slow.
    if np.ptp(mask.array) >= MAX_LABELS and (labels := np.unique(mask.array).size) > MAX_LABELS:
        return (
            f"{mask.path}: has {labels} different values; {expected}, or a map of the brain's "
            f"parts with at most {MAX_LABELS}: it looks like an image; give the mask"
        )
    return None
