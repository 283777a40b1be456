"""Find the parts of the brain where one visit has no data.

Defacing, empty slices and padding leave zeros inside the brain. New lesions cannot be found there.
"""

import numpy as np
from scipy import ndimage

LEAST_EMPTY_ML = 1.0  # a part without data is larger; fluid may have single voxels of exactly 0
LEAST_SCATTERED = 0.005  # of the brain; smaller parts count only if there are many of them
LEAST_BOTH = 0.05  # of the brain; large ventricles without any signal are smaller
LEAST_SPREAD = 0.25  # of the other visit where one visit is constant, relative to its whole range
MOST_CONSTANT = 0.9  # of the brain; what is constant beyond that is not an image at all
BORDER_VOXELS = 2  # from data; interpolation reaches one voxel along each axis
PADDING_GAP = 0.5  # smallest distance of padding from all other values, relative to their range

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
    Small parts, such as scattered voxels, count only if they are a large part of the brain.

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
    scattered = candidates & ~np.isin(labels, large) & (other >= least)
    if scattered.sum() < LEAST_SCATTERED * brain.sum():
        return np.isin(labels, tissue)
    return np.isin(labels, tissue) | scattered


def is_padding(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return which voxels of the brain have a padding value, such as -1024: bool.

    A padding value is negative, and far below all others.
    """
    inside = brain & (image == image.min())
    rest = image[brain & ~inside]
    if image.min() >= 0 or not rest.size:
        return np.zeros(brain.shape, bool)
    low, high = np.percentile(rest, (1, 99))
    return inside & bool(low - image.min() >= PADDING_GAP * (high - low))


def constant_parts(
    image: np.ndarray, other: np.ndarray, brain: np.ndarray, voxel_mm3: float
) -> np.ndarray:
    """Return the parts of the brain with one exact value, where the other visit varies: bool.

    An image of few grey levels is constant in large parts, too, but there the other visit hardly
    varies. Only the most common value is looked at.

    Args:
      image, other: (D, H, W), the visits.
      brain: (D, H, W) bool.
    """
    values, counts = np.unique(image[brain], return_counts=True)
    most = counts.max(initial=0)
    if most * voxel_mm3 < 1000 * LEAST_EMPTY_ML or most > MOST_CONSTANT * brain.sum():
        return np.zeros(brain.shape, bool)
    labels, count = ndimage.label(brain & (image == values[counts.argmax()]))
    volumes_ml = np.bincount(labels.ravel(), minlength=count + 1) * voxel_mm3 / 1000
    low, high = np.percentile(other[brain], (1, 99))
    found = []
    for label in np.flatnonzero(volumes_ml[1:] >= LEAST_EMPTY_ML) + 1:
        bottom, top = np.percentile(other[labels == label], (10, 90))
        if top - bottom > LEAST_SPREAD * (high - low):
            found.append(label)
    return np.isin(labels, found)


def with_borders_filled(image: np.ndarray, missing: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fill voxels without data that lie next to data, so that interpolation does not mix both.

    The inner voxels of large parts stay as they are, because nothing is known about them.

    Args:
      image: (D, H, W).
      missing: (D, H, W) bool, voxels without data.
      brain: (D, H, W) bool, the voxels of the brain that have data.
    """
    if not missing.any():
        return image
    distances, nearest = ndimage.distance_transform_edt(~brain, return_indices=True)
    return np.where(missing & (distances <= BORDER_VOXELS), image[tuple(nearest)], image)


def empty_warnings(empty_ml: tuple[float, float]) -> list[str]:
    """Return a warning for each visit that lacks data in a part of the brain.

    Args:
      empty_ml: the volumes of these parts, for the first and for the second visit.
    """
    return [
        f"{volume_ml:.{0 if volume_ml >= 1 else 2}f} ml of the brain have no data in the {visit} "
        "visit (zeros or padding). They are left out. New lesions cannot be found there."
        for visit, volume_ml in zip(("first", "second"), empty_ml, strict=True)
        if volume_ml > 0
    ]
