"""An image without a lesion that it has, and two that show the same where they differed by one."""

import numpy as np
from scipy import ndimage

AROUND_MM = 1.5  # what a mask leaves out of its lesion's border
SOFT_MM = 0.7  # Gaussian standard deviation of the seam
NEAR_MM = (3.0, 6.0, 12.0)  # of the weights of tissue around; the next where there is none so near
TISSUE = (0.8, 1.2)  # of the brain's median: what a lesion is replaced with
LOOK_ALIKE_MM = 6.0
DEVIATION_OF_MEDIAN = 1.4826  # of a normal distribution, from the median of what it differs by


def erase(
    image: np.ndarray, lesion: np.ndarray, all_lesions: np.ndarray, spacing_mm: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """The image with tissue like that around it in place of a lesion: (D, H, W) float32.

    Args:
      image: (D, H, W) float32, 1 where the brain's median is.
      lesion: (D, H, W) bool, what to take away.
      all_lesions: (D, H, W) bool, where no tissue is taken from.
    """
    seam = _seam(lesion, spacing_mm)
    low, high = TISSUE
    sound = (image > low) & (image < high) & ~_wider(all_lesions, AROUND_MM, spacing_mm)
    fill = np.zeros_like(image)
    left = seam > 0
    for near_mm in NEAR_MM:
        sigma = near_mm / spacing_mm
        weight = ndimage.gaussian_filter(sound.astype(np.float32), sigma)
        mean = ndimage.gaussian_filter(np.where(sound, image, 0), sigma)
        found = left & (weight > 0.02)
        fill[found] = mean[found] / weight[found]
        left &= ~found
    fill[left] = 1.0
    # The grain of the tissue, which the mean has lost. By the median, as edges are no grain.
    fine = np.abs(image - ndimage.gaussian_filter(image, 1.0))
    grain = DEVIATION_OF_MEDIAN * np.median(fine[sound]) if sound.any() else 0.0
    return image + seam * (
        fill + np.float32(grain) * rng.standard_normal(image.shape, np.float32) - image
    )


def make_alike(
    images: np.ndarray, change: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray, shown: int
) -> np.ndarray:
    """Both visits (2, D, H, W) with what one of them, `shown`, has where they differ by a lesion.

    Its brightness follows the other's around the place.
    """
    seam = _seam(change, spacing_mm)
    sound = (brain & (seam == 0)).astype(np.float32)
    sigma = LOOK_ALIKE_MM / spacing_mm
    near = [ndimage.gaussian_filter(image * sound, sigma) for image in images]
    other = 1 - shown
    ratio = np.divide(near[other], near[shown], out=np.ones_like(seam), where=near[shown] > 0.05)
    result = images.copy()
    result[other] += seam * (images[shown] * np.clip(ratio, 0.7, 1.4) - images[other])
    return result


def _wider(mask: np.ndarray, by_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask, spacing_mm) <= by_mm if mask.any() else mask


def _seam(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """1 on a mask and a little around it, falling to 0: float32."""
    wide = _wider(mask, AROUND_MM, spacing_mm).astype(np.float32)
    soft = ndimage.gaussian_filter(wide, SOFT_MM / spacing_mm)
    return np.maximum(soft, mask).astype(np.float32)
