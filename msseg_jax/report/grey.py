"""Turn voxels into grey values, and pictures into text for a page."""

import base64
import io

import numpy as np
from PIL import Image

# Percentiles inside the brain. The first is drawn black, the second white.
WINDOW = (0.5, 99.8)
QUARTILES = (25, 75)  # percentiles inside the brain
JPEG_QUALITY = 90


def brightness(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return how bright each voxel is drawn: 0 is black and 1 is white. It is not clipped.

    Args:
      image: (D, H, W).
      brain: (D, H, W) bool; its percentiles define black and white.
    """
    low, scale = _window(image, brain)
    return (image - low) / scale


def brightness_of_both(
    visits: tuple[np.ndarray, np.ndarray], brain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the brightness of both visits in the same window.

    The second visit is first scaled so that the quartiles of its brain are those of the first
    visit. New lesions hardly change the quartiles, but they can change the brightest voxels, so
    windows of each visit would not be comparable.

    Args:
      visits: (D, H, W) each.
      brain: (D, H, W) bool.
    """
    first, second = visits
    own, other = (np.percentile(visit[brain], QUARTILES) for visit in visits)
    gain = float(np.ptp(own) / np.ptp(other)) if np.ptp(other) > 0 else 1.0
    low, scale = _window(first, brain)
    shift = float(own[0] - gain * other[0])  # of the second visit
    return (first - low) / scale, (second * gain + (shift - low)) / scale


def _window(image: np.ndarray, brain: np.ndarray) -> tuple[float, float]:
    """Return the intensity that is drawn black, and the difference between white and black.

    They are Python's numbers, which leave float32 images as they are.
    """
    low, high = np.percentile(image[brain], WINDOW).tolist()
    return low, max(high - low, 1e-12)


def to_grey(values: np.ndarray) -> np.ndarray:
    """Convert brightness to grey values, uint8."""
    return np.clip(255 * values, 0, 255).astype(np.uint8)


def as_jpeg(picture: Image.Image) -> str:
    """Return a picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
