"""Notice visits that may be in the wrong order.

New lesions are bright at the second visit only. A large region that is bright only at the first
visit may be a lesion that vanished, but it is more often a new lesion of exchanged visits. The
bounds were chosen by this project, on two real pairs in both orders and on artificial patients.
"""

import numpy as np
from scipy import ndimage

SMOOTH_MM = 0.8  # Gaussian standard deviation, against noise
BRIGHTER = 0.35  # difference of the visits, as a share of the brain's median
LEAST_BRIGHTNESS = 1.35  # of the region, as a multiple of the brain's median
MARGIN_MM = 3.0  # the border of the brain is left out, where visits differ most
LEAST_PART_ML = 0.1  # smaller parts are not counted


def bright_only_ml(
    image: np.ndarray, other: np.ndarray, brain: np.ndarray, spacing_mm: float
) -> float:
    """Return the volume that is bright in one visit and not in the other, in ml.

    Args:
      image, other: (D, H, W), cubic voxels of `spacing_mm`.
      brain: (D, H, W) bool.
    """
    margin = max(1, round(MARGIN_MM / spacing_mm))
    inner = ndimage.binary_erosion(brain, iterations=margin)
    if not inner.any():
        return 0.0
    medians = [float(np.median(visit[brain])) for visit in (image, other)]
    if min(medians) <= 0:
        return 0.0
    smooth, smooth_other = (
        ndimage.gaussian_filter(visit / median, SMOOTH_MM / spacing_mm)
        for visit, median in zip((image, other), medians, strict=True)
    )
    found = inner & (smooth - smooth_other > BRIGHTER) & (smooth > LEAST_BRIGHTNESS)
    labels, count = ndimage.label(found)
    parts_ml = np.bincount(labels.ravel(), minlength=count + 1)[1:] * spacing_mm**3 / 1000
    return float(parts_ml[parts_ml >= LEAST_PART_ML].sum())
