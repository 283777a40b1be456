"""Tell a FLAIR from a T1-weighted image inside a brain mask.

In a FLAIR, grey matter is brighter than white matter; in a T1-weighted image it is darker. Grey
matter lies near the surface of the brain, and white matter deeper.
"""

import math

import numpy as np
from scipy import ndimage

SURFACE_MM = (1.5, 5.5)  # depth of the layer with the cortex; further outside may be fluid
DEEP_MM = (11.5, 19.5)  # depth of the layer that is mostly white matter
SURFACE_PERCENTILE = 70.0  # the layer also holds fluid, which is dark, so the median is too low
SAMPLES_MM = 2.0  # about one voxel per 2 mm along each axis is enough
LEAST_VOXELS = 200  # in each layer


def surface_to_depth(image: np.ndarray, brain: np.ndarray, spacing_mm: float) -> float:
    """Return the brightness of the layer with the cortex relative to that of white matter.

    In eight FLAIRs of two public databases, on voxels of 0.6 to 2.5 mm, it was 1.00 to 1.22, and
    0.95 in the T1 template of MNI152 (`python -m benchmarks.contrast FOLDER ...`). If the mask is
    3 mm too wide, the layer holds fluid and bone, and the ratio of a FLAIR may be as low as that of
    a T1.

    Args:
      image: (D, H, W), cubic voxels of `spacing_mm`.
      brain: (D, H, W) bool.

    Returns:
      NaN if the brain is too small to have both layers.
    """
    step = max(1, round(SAMPLES_MM / spacing_mm))
    every, side_mm = (slice(None, None, step),) * 3, step * spacing_mm
    image = image[every]
    # Padded, so that the border of the array counts as outside the brain.
    depth_mm = ndimage.distance_transform_edt(np.pad(brain[every], 1), side_mm)
    # The surface lies half-way between the last voxel inside and the first one outside.
    depth_mm = depth_mm[1:-1, 1:-1, 1:-1] - side_mm / 2
    surface, deep = (
        image[(depth_mm > low) & (depth_mm <= high)] for low, high in (SURFACE_MM, DEEP_MM)
    )
    if min(surface.size, deep.size) < LEAST_VOXELS or np.median(deep) <= 0:
        return math.nan
    return float(np.percentile(surface, SURFACE_PERCENTILE) / np.median(deep))
