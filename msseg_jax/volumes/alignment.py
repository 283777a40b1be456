"""Measure how well two visits are aligned: the rigid motion that is left between them, in mm.

A Gauss-Newton fit on voxels of GRID_MM finds the motion of the second visit, and a gain and an
offset, that best explain the first visit inside the brain. The images are band-pass filtered, so
that edges count, rather than the bias field or the contrast of a different protocol. Voxels that
disagree with the rest (lesions, vessels) are left out. The fit can measure a motion of some
millimetres and degrees. It is not a registration: visits that are further apart are recognised by
their low correlation.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msseg_jax.volumes.resampling import resampling_to

GRID_MM = 2.0  # voxel side: resolves a motion of a tenth of it, and takes about a second
FINEST, COARSEST = 1.0, 4.0  # voxels, standard deviations of the Gaussians of the band-pass filter
POINTS = 30_000  # approximate number of the brain's voxels that are compared
ITERATIONS = 15  # at most
OUTLIER = 2.5  # standard deviations, estimated from the median absolute deviation


@dataclass(frozen=True)
class Alignment:
    """Measures of how well two visits match inside the brain."""

    displacement_mm: float  # mean over the brain's voxels, of the motion that is left
    correlation: float  # of the band-pass filtered visits, before any motion is undone


def measure_alignment(
    time01: np.ndarray, time02: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray
) -> Alignment:
    """Measure the rigid motion between two images on one grid, and their correlation.

    Args:
      time01, time02: (D, H, W) float32.
      brain: (D, H, W) bool.
      spacing_mm: (3,), voxel sides.

    Returns:
      The displacement and the correlation. Both are NaN if the volume is too thin for the grid of
      the fit, or if it has no brain voxel there.
    """
    resampling = resampling_to(GRID_MM, brain.shape, spacing_mm)
    brain = resampling.forward_labels(brain)
    if min(brain.shape) < 2 or not brain.any():
        return Alignment(math.nan, math.nan)
    fixed, moving = (_band_pass(resampling.forward(image)) for image in (time01, time02))
    # Away from the edge of the brain, where a mask may have cut the images.
    inside = ndimage.binary_erosion(brain, iterations=2)
    points = np.argwhere(inside if inside.any() else brain)
    points = points[:: max(1, len(points) // POINTS)].T.astype(float)  # (3, V) voxels
    reference = fixed[tuple(points.astype(int))]
    centre = points.mean(axis=1, keepdims=True)
    arms = points - centre
    gradients = np.stack(np.gradient(moving))

    rotation, shift = np.eye(3), np.zeros((3, 1))
    correlation = math.nan
    for _ in range(ITERATIONS):
        moved = rotation @ arms + centre + shift
        values = ndimage.map_coordinates(moving, moved, order=1, mode="nearest")
        if math.isnan(correlation):
            correlation = _correlation(reference, values)
        slopes = np.stack(
            [ndimage.map_coordinates(g, moved, order=1, mode="nearest") for g in gradients]
        )
        # The model is reference = gain * (values + slopes . motion) + offset. The motion is a shift
        # and a small rotation w about the centre. The rotation moves a point at `arm` r by w x r.
        turns = np.cross((rotation @ arms).T, slopes.T).T
        design = np.stack([*turns, *slopes, values, np.ones_like(values)])
        step = _robust_solution(design, reference)
        gain = step[6]
        if not abs(gain) > 1e-6:
            break
        turn, move = step[:3] / gain, step[3:6] / gain
        rotation = _rotation(turn) @ rotation
        shift = shift + move[:, None]
        if np.abs(move).max() < 1e-3 and np.abs(turn).max() < 1e-5:
            break
    displacement = rotation @ arms + shift - arms
    return Alignment(float(np.linalg.norm(displacement, axis=0).mean() * GRID_MM), correlation)


def _band_pass(image: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(image, FINEST) - ndimage.gaussian_filter(image, COARSEST)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def _robust_solution(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve design.T @ x = target by least squares, twice: the second time without the outliers."""
    kept = np.ones(target.shape, dtype=bool)
    for _ in range(2):
        a = design[:, kept]
        scale = np.sqrt((a * a).mean(axis=1)) + 1e-12  # for a well-conditioned system
        a = a / scale[:, None]
        solution = np.linalg.lstsq(a @ a.T, a @ target[kept], rcond=1e-10)[0] / scale
        error = np.abs(target - solution @ design)
        kept = error <= OUTLIER * 1.4826 * np.median(error) + 1e-12
    return solution


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Return the matrix of the rotation by |vector| radians about `vector` (Rodrigues)."""
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
