"""Simulate the scanner: the grid of the images, coil sensitivity, noise and contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msseg_jax.simulate.phantom.fields import HeadGrid, coarse_field, interpolated_planes
from msseg_jax.simulate.phantom.plan import PatientPlan

# Field of view in head coordinates: the whole head down to the upper jaw.
VIEW_CENTRE_MM, VIEW_MM = (0.0, -17.0, -12.0), (176.0, 236.0, 222.0)
WORK_MM = 1.1  # minimum voxel side of the work grid, on which the head and the noise are made


def image_grid(
    plan: PatientPlan, rng: np.random.Generator, spacing_mm: Sequence[float] | None = None
) -> tuple[HeadGrid, np.ndarray]:
    """Return the grid of both images, and their affine (4 x 4, voxel indices to scanner mm, RAS).

    Args:
        plan: plan of the patient.
        rng: draws the pose of the head, the oblique angle of the slices and the table position.
        spacing_mm: replaces the planned voxel size.
    """
    sides_mm = np.asarray(spacing_mm or plan.spacing_mm, float)
    axes = np.zeros((3, 3))  # each column is the direction of an array axis in the head
    for axis, letter in enumerate(plan.orientation):
        row = next(r for r, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        axes[row, axis] = 1.0 if letter in "RAS" else -1.0
    view_mm = np.abs(axes.T) @ (np.array(VIEW_MM) * rng.uniform(1.0, 1.04, 3))
    shape = tuple(int(2 * round(v / (2 * s))) for v, s in zip(view_mm, sides_mm, strict=True))

    pose = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3) * (5, 3, 4), degrees=True).as_matrix()
    centre = (np.array(shape) - 1) / 2
    to_head = np.eye(4)
    to_head[:3, :3] = pose @ axes * sides_mm
    to_head[:3, 3] = np.add(VIEW_CENTRE_MM, rng.uniform(-2, 2, 3)) - to_head[:3, :3] @ centre

    # Half of the scans are oblique: their axes are rotated relative to those of the magnet.
    angles = rng.uniform(-1, 1, 3) * (18, 6, 6) * (rng.random() < 0.5)
    oblique = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = oblique @ axes * sides_mm
    affine[:3, 3] = rng.uniform(-25, 25, 3) - affine[:3, :3] @ centre
    return HeadGrid(shape, to_head), affine


def work_grid(grid: HeadGrid) -> HeadGrid:
    """Return a grid over the same field of view with voxel sides of at least WORK_MM."""
    return grid.resized(
        tuple(
            int(np.ceil(n * mm / max(mm, WORK_MM) - 1e-6))
            for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)
        )
    )


def small_motion(rng: np.random.Generator) -> np.ndarray:
    """Draw a registration error: a rotation of 0.1 to 0.7 degrees and a shift of 0.1 to 0.7 mm.

    Returns:
        4 x 4 matrix from head coordinates of the second visit to those of the first.
    """
    axis, shift = rng.standard_normal((2, 3))
    turn = np.deg2rad(rng.uniform(0.1, 0.7)) * axis / np.linalg.norm(axis)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    motion[:3, 3] = rng.uniform(0.1, 0.7) * shift / np.linalg.norm(shift)
    # The rotation is about the middle of the brain, not about the origin of the coordinates.
    pivot = np.array([0.0, -17.0, 0.0])
    motion[:3, 3] += pivot - motion[:3, :3] @ pivot
    return motion


def moved(
    signal: np.ndarray, grid: HeadGrid, motion: np.ndarray, box: tuple[slice, ...], near: np.ndarray
) -> np.ndarray:
    """Resample `signal` on `grid` after `motion`.

    The brain is resampled with a quadratic spline, which keeps it sharp. With linear interpolation
    one visit would be more blurred than the other. Outside the brain, linear interpolation is good
    enough, and much faster.

    Args:
        signal: grid.shape, float32.
        grid: grid of `signal`.
        motion: 4 x 4 matrix from head coordinates after the motion to those before it, mm.
        box: bounding box of the brain, as indices.
        near: True in the voxels of `box` that belong to the brain, bool.
    """
    index = np.linalg.inv(grid.to_head_mm) @ motion @ grid.to_head_mm
    result = ndimage.affine_transform(
        signal, index[:3, :3], index[:3, 3], order=1, mode="nearest", output=np.float32
    )
    start = np.array([s.start for s in box])
    i, j, k = (v.astype(np.float32) for v in np.nonzero(near))
    turn = index[:3, :3]
    shift = (turn @ start + index[:3, 3] - start).astype(np.float32)
    # The sums are written out, because a threaded matrix product may round differently in each run.
    here = np.stack(
        [
            np.float32(a) * i + np.float32(b) * j + np.float32(c) * k + d
            for (a, b, c), d in zip(turn, shift, strict=True)
        ]
    )
    result[box][near] = np.maximum(
        ndimage.map_coordinates(signal[box], here, order=2, mode="nearest", output=np.float32), 0
    )
    return result


@dataclass(frozen=True)
class Acquisition:
    """Scanner settings of one visit.

    Attributes:
        white: stored intensity of white matter.
        gamma: exponent applied to the signal; 1 does not change it.
        noise: standard deviation, relative to white matter.
        bias: standard deviation of the logarithm of the coil sensitivity.
        clean_air: True if the noise in the air around the head is set to zero.
    """

    white: float
    gamma: float
    noise: float
    bias: float
    clean_air: bool

    @classmethod
    def draw(cls, plan: PatientPlan) -> tuple[Acquisition, Acquisition]:
        """Draw the settings of both visits of a patient, which are similar but never equal."""
        rng = plan.rng("time01")
        white, noise, clean_air = (
            rng.uniform(180, 800),
            rng.uniform(0.016, 0.028),
            rng.random() < 0.7,
        )
        first = cls(white, 1.0, noise, rng.uniform(0.04, 0.09), clean_air)
        rng = plan.rng("time02")
        second = cls(
            white=white * rng.uniform(0.7, 1.4),
            gamma=float(np.clip(rng.normal(1.0, 0.04), 0.92, 1.08)),
            noise=noise * rng.uniform(0.8, 1.25),
            bias=rng.uniform(0.04, 0.09),
            clean_air=clean_air,
        )
        return first, second


def acquire(
    signal: np.ndarray,
    inside: np.ndarray,
    spacing_mm: np.ndarray,
    scan: Acquisition,
    rng: np.random.Generator,
    dtype: str,
) -> np.ndarray:
    """Simulate the image that a scanner records of `signal`.

    Args:
        signal: relative to white matter, on the image grid.
        inside: mask of the head, on the work grid.
        spacing_mm: voxel spacing of the image grid.
        scan: settings.
        rng: draws coil sensitivity and noise.
        dtype: data type of the image.

    Returns:
        The magnitude image. Its noise is Rician, because scanners compute the magnitude from two
        noisy channels. The noise is drawn on the work grid and interpolated to the image grid,
        which gives the correlated noise of zero-filled scans.
    """
    bias = np.exp(scan.bias * np.clip(coarse_field(rng, signal.shape, spacing_mm, 80.0), -2.5, 2.5))
    air = ~ndimage.binary_dilation(inside, iterations=2)
    channels = []
    for _ in range(2):
        noise = np.float32(scan.noise) * rng.standard_normal(inside.shape, np.float32)
        if scan.clean_air:
            noise[air] = 0
        channels.append(interpolated_planes(noise, signal.shape))
    image = np.empty(signal.shape, dtype)
    planes = zip(image, signal, interpolated_planes(bias, signal.shape), *channels, strict=True)
    for out, true, sensitivity, real, imaginary in planes:
        seen = np.maximum(true, 0) ** np.float32(scan.gamma) * sensitivity
        magnitude = np.float32(scan.white) * np.sqrt((seen + real) ** 2 + imaginary**2)
        out[...] = np.rint(magnitude) if image.dtype.kind == "i" else magnitude
    return image
