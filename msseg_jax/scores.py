"""How well a mask of new lesions agrees with a reference mask."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FOUND_SHARE = 0.10  # a lesion is found if more than this share of its voxels is predicted


@dataclass(frozen=True)
class LesionCounts:
    """Lesions are 6-connected components."""

    found: int  # reference lesions of which more than FOUND_SHARE is predicted
    missed: int  # the other reference lesions
    false: int  # predicted lesions that share no voxel with a reference lesion


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """2 |R and P| / (|R| + |P|) of two bool masks; NaN if both are empty."""
    total = int(reference.sum()) + int(prediction.sum())
    return 2 * int((reference & prediction).sum()) / total if total else float("nan")


def count_lesions(reference: np.ndarray, prediction: np.ndarray) -> LesionCounts:
    """Found, missed and false lesions of a predicted mask; both (D, H, W) bool."""
    references, reference_count = ndimage.label(reference)
    covered = _means(prediction, references, reference_count)
    found = int((covered > FOUND_SHARE).sum())
    predictions, prediction_count = ndimage.label(prediction)
    shared = _means(reference, predictions, prediction_count)
    return LesionCounts(found, reference_count - found, int((shared == 0).sum()))


def _means(mask: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The share of each labelled component, 1 to `count`, that lies in `mask`: (count,)."""
    if not count:
        return np.zeros(0)
    return ndimage.mean(mask.astype(np.float32), labels, np.arange(1, count + 1))
