"""Check that a volume is a mask of the expected kind."""

from pathlib import Path

import numpy as np

from msseg_jax.volumes.volume import Volume

ROUNDING = 1e-3  # masks and probabilities may be this far beyond their range after resampling
MAX_LABELS = 256  # different values of a label map, with 0; FreeSurfer's have up to about 200


def is_inside(mask: np.ndarray) -> np.ndarray:
    """Return which voxels of a checked mask or label map are not 0: bool.

    A mask that was resampled, or stored with a scale factor, may hold 0.999999 and 0.0000001.
    """
    return np.rint(mask) != 0


def mask_problem(name: Path | str, array: np.ndarray) -> str | None:
    """Return a message if an array is not a binary mask, and None if it is one."""
    wrong = array[(np.abs(array) > ROUNDING) & (np.abs(array - 1) > ROUNDING)]
    if not wrong.size:
        return None
    if (np.abs(wrong - np.rint(wrong)) <= ROUNDING).all():
        advice = "It looks like a label map. Keep only the new lesions, with the value 1."
    elif wrong.min() >= 0 and wrong.max() <= 1:
        advice = "It looks like a probability map. Threshold it."
    else:
        advice = "Make it binary."
    return (
        f"{name}: {wrong.size} voxels have values other than 0 and 1, for example {wrong[0]:g}. "
        f"Expected a mask of only the new lesions. {advice}"
    )


def brain_mask_problem(mask: Volume, visits: tuple[Volume | None, ...] = ()) -> str | None:
    """Return a message if a volume is neither a brain mask nor a label map of the brain.

    Return None if it is one of them.

    Args:
      visits: images that the mask must differ from.
    """
    expected = "Expected a brain mask, 1 inside and 0 outside"
    if (np.abs(mask.array - np.rint(mask.array)) > ROUNDING).any():
        return (
            f"{mask.path}: has values that are not integers. {expected}. It looks like a "
            "probability map or an image. Threshold it, or give the mask."
        )
    for visit in filter(None, visits):
        if np.array_equal(mask.array, visit.array):
            return (
                f"{mask.path} and {visit.path} contain the same voxels. {expected}. Give the mask."
            )
    # All values are integers here. Counting them is slow, so it is done only if their range allows
    # too many different ones.
    if np.ptp(mask.array) >= MAX_LABELS and (labels := np.unique(mask.array).size) > MAX_LABELS:
        return (
            f"{mask.path}: has {labels} different values. {expected}, or a label map of the brain "
            f"with at most {MAX_LABELS} values. It looks like an image. Give the mask."
        )
    return None
