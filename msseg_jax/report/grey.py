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
    low, high = np.percentile(image[brain], WINDOW)
    return (image - low) / max(high - low, 1e-12)


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
    gain = np.ptp(own) / np.ptp(other) if np.ptp(other) > 0 else 1.0
    low, high = np.percentile(first[brain], WINDOW)
    scale = max(high - low, 1e-12)
    return (first - low) / scale, (own[0] + gain * (second - other[0]) - low) / scale


def to_grey(values: np.ndarray) -> np.ndarray:
    """Convert brightness to grey values, uint8."""
    return np.clip(255 * values, 0, 255).astype(np.uint8)


def as_jpeg(picture: Image.Image) -> str:
    """Return a picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
