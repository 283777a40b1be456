"""Turn voxels into grey values, and pictures into text for a page."""

import base64
import io

import numpy as np
from PIL import Image

# Percentiles inside the brain. The first is drawn black, the second white.
WINDOW = (0.5, 99.8)
JPEG_QUALITY = 90


def brightness(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return how bright each voxel is drawn: 0 is black and 1 is white. It is not clipped.

    Args:
      image: (D, H, W).
      brain: (D, H, W) bool; its percentiles define black and white.
    """
    low, high = np.percentile(image[brain], WINDOW)
    return (image - low) / max(high - low, 1e-12)


def to_grey(values: np.ndarray) -> np.ndarray:
    """Convert brightness to grey values, uint8."""
    return np.clip(255 * values, 0, 255).astype(np.uint8)


def as_jpeg(picture: Image.Image) -> str:
    """Return a picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
