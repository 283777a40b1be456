"""Find normal structures of a head whose place in MNI space is known."""

import numpy as np
from scipy import ndimage

FLUID = 0.55  # relative to the brain's median; darker voxels of a FLAIR are fluid
# Boxes in MNI space, mm. The lateral ventricles lie in the first. The cisterns around the brain
# stem lie near the centre of an ellipsoid with these semi-axes.
VENTRICLES_MM = np.array([[-42.0, -62.0, -12.0], [42.0, 40.0, 36.0]])
CISTERNS_MM, CISTERN_SIZES_MM = np.array([0.0, -22.0, -35.0]), np.array([30.0, 32.0, 25.0])
LEAST_VENTRICLE_MM3 = 100.0  # smaller parts of the fluid in the box are not taken for ventricles
THICK_MM = 2.0  # larger voxel sides are those of thick slices


def places_in_mni(to_mni: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return the MNI coordinates x, y and z of each voxel, mm, (D, H, W) float32 each.

    Args:
      to_mni: (4, 4), voxel indices to MNI mm.
      shape: (D, H, W).
    """
    rows = to_mni.astype(np.float32)
    sides = [np.arange(n, dtype=np.float32) for n in shape]
    i, j, k = sides[0][:, None, None], sides[1][:, None], sides[2]
    return [row[0] * i + row[1] * j + row[2] * k + row[3] for row in rows[:3]]


def find_ventricles(
    image: np.ndarray, brain: np.ndarray, places_mm: list[np.ndarray], spacing_mm: np.ndarray
) -> np.ndarray:
    """Return the lateral ventricles, (D, H, W) bool: dark voxels in a box in MNI space.

    Args:
      image: (D, H, W) FLAIR; 1 is the median of the brain.
      brain: (D, H, W) bool.
      places_mm: from `places_in_mni`.
      spacing_mm: (3,), voxel sides.
    """
    low, high = VENTRICLES_MM
    box = np.all([(p > a) & (p < b) for p, a, b in zip(places_mm, low, high, strict=True)], axis=0)
    # Thick slices are opened one by one, because a ventricle is in only a few of them.
    reach = [1 if mm <= THICK_MM else 0 for mm in spacing_mm]
    cross = ndimage.generate_binary_structure(3, 1)
    within = cross[tuple(slice(1 - n, 2 + n) for n in reach)]
    fluid = ndimage.binary_opening(brain & box & (image < FLUID), within)
    labels, _ = ndimage.label(fluid)
    mm3 = np.bincount(labels.ravel()) * np.prod(spacing_mm)
    mm3[0] = 0
    return (mm3 >= LEAST_VENTRICLE_MM3)[labels]


def squared_distance_from_brain_stem(points_mm: list[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return how far points are from the middle of the brain stem: below 1 near its cisterns.

    Args:
      points_mm: MNI coordinates x, y and z.

    Returns:
      The square of the distance in semi-axes of the ellipsoid, an array as one of the coordinates.
    """
    squares = [
        ((p - centre) / size) ** 2
        for p, centre, size in zip(points_mm, CISTERNS_MM, CISTERN_SIZES_MM, strict=True)
    ]
    return sum(squares[1:], squares[0])
