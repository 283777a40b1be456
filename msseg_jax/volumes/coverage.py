"""Find the parts of the brain where one visit has no data.

Defacing, empty slices and padding leave zeros inside the brain. New lesions cannot be found there.
"""

import numpy as np
from scipy import ndimage

LEAST_EMPTY_ML = 1.0  # a part without data is larger; fluid may have single voxels of exactly 0

TISSUE = 0.5  # of the median inside the brain; fluid is darker than this in a FLAIR


def empty_parts(
    is_empty: np.ndarray,
    is_empty_in_other: np.ndarray,
    other: np.ndarray,
    brain: np.ndarray,
    voxel_mm3: float,
) -> np.ndarray:
    """Return the parts of the brain where one visit has no data and the other shows tissue: bool.

    Fluid may be exactly 0 at one visit, if a program subtracted a constant. It is not counted.

    Args:
      is_empty: (D, H, W) bool, voxels of the visit without data, such as exact zeros.
      is_empty_in_other: the same for the other visit.
      other: (D, H, W), the other visit.
      brain: (D, H, W) bool.
    """
    candidates = is_empty & ~is_empty_in_other & brain
    if candidates.sum() * voxel_mm3 < 1000 * LEAST_EMPTY_ML:
        return np.zeros(brain.shape, bool)
    labels, count = ndimage.label(candidates)
    volumes_ml = np.bincount(labels.ravel(), minlength=count + 1) * voxel_mm3 / 1000
    large = np.flatnonzero(volumes_ml >= LEAST_EMPTY_ML)
    large = large[large > 0]
    least = TISSUE * np.median(other[brain])
    tissue = [label for label in large if np.median(other[labels == label]) >= least]
    return np.isin(labels, tissue)


def empty_warnings(empty_ml: tuple[float, float]) -> list[str]:
    """Return a warning for each visit that lacks data in a part of the brain.

    Args:
      empty_ml: the volumes of these parts, for the first and for the second visit.
    """
    return [
        f"{volume_ml:.0f} ml of the brain have no data in the {visit} visit (zeros or padding). "
        "They are left out. New lesions cannot be found there."
        for visit, volume_ml in zip(("first", "second"), empty_ml, strict=True)
        if volume_ml > 0
    ]
