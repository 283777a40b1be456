"""Find the brightest differences that were not marked, so that a reader can check them."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from msseg_jax.inference.prediction import Prediction
from msseg_jax.report.drawn import DrawnPair
from msseg_jax.volumes.grids import bounding_box

MOST = 3  # places
SMOOTH_MM = 1.2  # Gaussian standard deviation; single bright voxels are noise
RIM_MM = 4.0  # tissue this close to the edge of the brain is left out, as in the baseline
APART_MM = 10.0  # distance between two places, and between a place and a marked lesion
NEAR_MM = 3.0  # the probability is the largest one within this distance


@dataclass(frozen=True)
class Unmarked:
    """A place where the second visit is brighter, and which was not marked."""

    point_mm: np.ndarray  # (3,), mm of the pair
    brighter_percent: float  # of the range from black to white in the pictures
    probability: float


def brightest_unmarked(prediction: Prediction, pair: DrawnPair) -> list[Unmarked]:
    """Return the places where the second visit is brightest in comparison with the first.

    Args:
      prediction: the maps and the mask on the grid of the pair.
      pair: the pair as it is drawn. The visits are compared as in the pictures.
    """
    box, spacing_mm = bounding_box(pair.brain), pair.spacing_mm
    first, second = (np.clip(visit[box], 0, 1) for visit in pair.visits)
    rise = ndimage.gaussian_filter(second - first, SMOOTH_MM / spacing_mm)
    inside = np.pad(pair.brain[box], 1)
    free = ndimage.distance_transform_edt(inside, spacing_mm)[1:-1, 1:-1, 1:-1] > RIM_MM
    marked = pair.view(prediction.found.mask)[box] > 0
    if marked.any():
        free &= ndimage.distance_transform_edt(~marked, spacing_mm) > APART_MM
    probability = pair.view(prediction.found.probability)[box]
    start = np.array([side.start for side in box])
    found = []
    rise[~free] = 0
    for _ in range(MOST):
        place = np.unravel_index(rise.argmax(), rise.shape)
        if rise[place] <= 0:
            break
        around = _ball(place, rise.shape, spacing_mm, NEAR_MM)
        likelihood = float(probability[around].max())
        point = apply_affine(pair.view.affine, start + place)
        found.append(Unmarked(point, 100 * float(rise[place]), likelihood))
        rise[_ball(place, rise.shape, spacing_mm, APART_MM)] = 0
    return found


def _ball(
    centre: tuple[np.intp, ...], shape: tuple[int, ...], spacing_mm: np.ndarray, radius_mm: float
) -> tuple[np.ndarray, ...]:
    """Return the indices of the voxels around a voxel."""
    reach = np.ceil(radius_mm / spacing_mm).astype(int)
    sides = [
        np.arange(max(0, c - r), min(length, c + r + 1))
        for c, r, length in zip(centre, reach, shape, strict=True)
    ]
    grid = np.meshgrid(*sides, indexing="ij")
    squares = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grid, centre, spacing_mm, strict=True))
    near = squares <= radius_mm**2
    return tuple(g[near] for g in grid)
