"""Remove lesions from an image, and lesion differences between two visits."""

import numpy as np
from scipy import ndimage

AROUND_MM = 1.5  # margin added to a mask, because masks miss the outer border of lesions
SOFT_MM = 0.7  # Gaussian standard deviation of the soft edge between old and new intensities
# Gaussian standard deviations of the local mean of normal tissue. A longer one is used only where
# there is no normal tissue within reach of the shorter ones.
NEAR_MM = (3.0, 6.0, 12.0)
TISSUE = (0.8, 1.2)  # intensities of normal tissue, relative to the brain's median
LOOK_ALIKE_MM = 6.0  # Gaussian standard deviation of the local means that match two visits
# Ratio of the standard deviation to the median absolute deviation, for a normal distribution.
DEVIATION_OF_MEDIAN = 1.4826


def erase(
    image: np.ndarray, lesion: np.ndarray, all_lesions: np.ndarray, spacing_mm: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Replace a lesion by tissue that looks like the tissue around it.

    Args:
      image: (D, H, W) float32, 1 is the median of the brain.
      lesion: (D, H, W) bool, the lesion to remove.
      all_lesions: (D, H, W) bool, voxels that are not used as normal tissue. Those that are not in
        `lesion` stay as they are.
      spacing_mm: (3,), voxel spacing.
      rng: draws the noise of the new tissue.

    Returns:
      The image without the lesion, (D, H, W) float32.
    """
    blend = soft_mask(lesion, spacing_mm) * ~(all_lesions & ~lesion)
    low, high = TISSUE
    normal = (image > low) & (image < high) & ~_dilate(all_lesions, AROUND_MM, spacing_mm)
    fill = np.zeros_like(image)
    left = blend > 0
    for near_mm in NEAR_MM:
        if not left.any():
            break
        sigma = near_mm / spacing_mm
        weight = ndimage.gaussian_filter(normal.astype(np.float32), sigma)
        mean = ndimage.gaussian_filter(np.where(normal, image, 0), sigma)
        found = left & (weight > 0.02)
        fill[found] = mean[found] / weight[found]
        left &= ~found
    fill[left] = 1.0
    # Averaging has removed the fine texture of the tissue, so noise of the same strength is added.
    # The median ignores edges, which would make the texture look too strong.
    fine = np.abs(image - ndimage.gaussian_filter(image, 1.0))
    grain = DEVIATION_OF_MEDIAN * np.median(fine[normal]) if normal.any() else 0.0
    return image + blend * (
        fill + np.float32(grain) * rng.standard_normal(image.shape, np.float32) - image
    )


def make_alike(
    images: np.ndarray, change: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray, shown: int
) -> np.ndarray:
    """Remove the lesion differences between two visits, so that both look like visit `shown`.

    The copied intensities are scaled by the ratio of the local means of the two visits.

    Args:
      images: (2, D, H, W) float32, both visits.
      change: (D, H, W) bool, where the visits differ by a lesion.
      brain: (D, H, W) bool.
      spacing_mm: (3,), voxel spacing.
      shown: the visit that is copied into the other one, 0 or 1.

    Returns:
      Both visits, (2, D, H, W) float32.
    """
    blend = soft_mask(change, spacing_mm)
    normal = (brain & (blend == 0)).astype(np.float32)
    sigma = LOOK_ALIKE_MM / spacing_mm
    near = [ndimage.gaussian_filter(image * normal, sigma) for image in images]
    other = 1 - shown
    ratio = np.divide(near[other], near[shown], out=np.ones_like(blend), where=near[shown] > 0.05)
    result = images.copy()
    result[other] += blend * (images[shown] * np.clip(ratio, 0.7, 1.4) - images[other])
    return result


def _dilate(mask: np.ndarray, by_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Return all voxels within `by_mm` of a mask.

    For a margin of a few voxels, this is faster than distances to the mask.
    """
    reach = np.floor(by_mm / spacing_mm + 1e-6).astype(int)
    offsets_mm = [mm * np.arange(-n, n + 1) for n, mm in zip(reach, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*offsets_mm, indexing="ij", sparse=True)
    return ndimage.binary_dilation(mask, np.sqrt(x**2 + y**2 + z**2) <= by_mm)


def soft_mask(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Return weights, float32: 1 on a mask and close to it, then falling smoothly to 0."""
    wide = _dilate(mask, AROUND_MM, spacing_mm).astype(np.float32)
    soft = ndimage.gaussian_filter(wide, SOFT_MM / spacing_mm)
    return np.maximum(soft, mask).astype(np.float32)
