"""Smooth random fields, and the separable interpolation of these fields to a fine grid.

All smooth parts of a phantom (deformation, texture, coil sensitivity, folding) are drawn on a
coarse grid that matches their wavelength, and then interpolated. Therefore a patient takes only a
few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage, sparse


@dataclass(frozen=True)
class HeadGrid:
    """Grid of voxels in head coordinates (mm; x to the right, y to the front, z to the top).

    Attributes:
        shape: number of voxels along the three array axes.
        to_head_mm: 4 x 4 matrix from voxel indices to head coordinates.
    """

    shape: tuple[int, ...]
    to_head_mm: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel sides: (3,), in mm."""
        return np.linalg.norm(self.to_head_mm[:3, :3], axis=0)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm))

    def resized(self, shape: tuple[int, ...]) -> HeadGrid:
        """Return a grid over the same field of view with another number of voxels."""
        factor = np.divide(self.shape, shape)
        change = np.diag([*factor, 1.0])
        # The outer faces stay in place, so the centre of the first voxel moves.
        change[:3, 3] = (factor - 1) / 2
        return HeadGrid(tuple(map(int, shape)), self.to_head_mm @ change)

    def coordinates(self, box: Sequence[slice] | None = None) -> list[np.ndarray]:
        """Return x, y and z (mm, float32) at the voxel centres of `box`, or of the whole grid."""
        box = box or tuple(slice(0, n) for n in self.shape)
        i, j, k = np.ogrid[tuple(box)]
        m = self.to_head_mm
        # The shift is added to the smallest term, so that each coordinate needs only one addition
        # of full size.
        return [
            ((m[r, 0] * i + m[r, 3]) + m[r, 1] * j).astype(np.float32)
            + (m[r, 2] * k).astype(np.float32)
            for r in range(3)
        ]

    def box(
        self, low_mm: Sequence[float] | np.ndarray, high_mm: Sequence[float] | np.ndarray
    ) -> tuple[slice, ...]:
        """Return the smallest index box around a box in head coordinates, clipped to the grid."""
        corners = np.array(np.meshgrid(*zip(low_mm, high_mm, strict=True), indexing="ij")).reshape(
            3, -1
        )
        inverse = np.linalg.inv(self.to_head_mm)
        index = inverse[:3, :3] @ corners + inverse[:3, 3:]
        first = np.clip(np.floor(index.min(1)).astype(int), 0, np.array(self.shape) - 1)
        last = np.clip(np.ceil(index.max(1)).astype(int) + 1, first + 1, self.shape)
        return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))


def ramp(t: np.ndarray) -> np.ndarray:
    """Return the share of a voxel on the positive side of a plane.

    The centre of the voxel lies at the signed distance `t` from the plane, in voxels. The share is
    0.5 at t = 0.
    """
    return np.clip(t + 0.5, 0.0, 1.0)


def interpolation_matrix(size: int, positions: np.ndarray) -> sparse.csr_matrix:
    """Return the Catmull-Rom weights that interpolate a line of `size` samples at `positions`.

    Positions are in samples. Outside the line, the value at its end is used. The matrix is sparse
    because a dense product uses BLAS. BLAS may round differently with another number of threads,
    and the files would then depend on that number.

    Returns:
        Sparse matrix, (positions, size), float32.
    """
    positions = np.clip(np.asarray(positions, np.float64), 0, size - 1)
    base = np.floor(positions).astype(int)
    t = positions - base
    weights = np.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ],
        axis=1,
    )  # (positions, 4)
    columns = np.clip(base[:, None] + np.arange(-1, 3), 0, size - 1)
    rows = np.repeat(np.arange(len(positions)), 4)
    matrix = sparse.coo_matrix(
        (weights.ravel().astype(np.float32), (rows, columns.ravel())), (len(positions), size)
    ).tocsr()
    matrix.eliminate_zeros()  # positions on a sample keep one weight, which is faster
    return matrix


def interpolated_planes(volume: np.ndarray, shape: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the planes along the first axis of `stretch(volume, shape)`.

    The planes are computed one at a time, so that a caller does not need memory for a whole volume.
    """
    matrices = [
        interpolation_matrix(n, (np.arange(m) + 0.5) * n / m - 0.5)
        for n, m in zip(volume.shape, shape, strict=True)
    ]
    slabs = matrices[0] @ volume.reshape(volume.shape[0], -1)
    for slab in slabs.reshape((shape[0], *volume.shape[1:])):
        yield (matrices[2] @ (matrices[1] @ slab).T).T


def stretch(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Interpolate `volume` (float32) to `shape` over the same field of view."""
    result = np.empty(tuple(shape), np.float32)
    for plane, values in zip(result, interpolated_planes(volume, shape), strict=True):
        plane[...] = values
    return result


def coarse_field(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing_mm: Sequence[float] | np.ndarray,
    scale_mm: float,
) -> np.ndarray:
    """Draw white noise, smoothed to a correlation length of about `scale_mm`.

    The samples cover the field of view `shape` x `spacing_mm`. They are half a correlation length
    apart. Their mean is 0 and their variance is 1.
    """
    size = [
        max(4, int(np.ceil(2 * n * mm / scale_mm))) for n, mm in zip(shape, spacing_mm, strict=True)
    ]
    field = ndimage.gaussian_filter(rng.standard_normal(size), 1.0, mode="reflect")
    field -= field.mean()
    return (field / field.std()).astype(np.float32)


def smooth_field(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing_mm: Sequence[float] | np.ndarray,
    scale_mm: float,
) -> np.ndarray:
    """Draw a `coarse_field` and interpolate it to `shape`."""
    return stretch(coarse_field(rng, shape, spacing_mm, scale_mm), shape)


def striped_field(rng: np.random.Generator, size: int, wavelength: float) -> np.ndarray:
    """Draw a random labyrinth: noise with only wavelengths near `wavelength` (in samples).

    It is 0 on sheets that are about half a wavelength apart. The sheets wind and branch like the
    sulci of a brain.

    Returns:
        Field of shape (size, size, size), float32, variance 1.
    """
    noise = rng.standard_normal((size, size, size)).astype(np.float32)
    full, half = fft.fftfreq(size), fft.rfftfreq(size)
    frequency = np.sqrt(
        full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2
    )
    band = np.exp(-0.5 * ((frequency * wavelength - 1) / 0.13) ** 2).astype(np.float32)
    field = fft.irfftn(fft.rfftn(noise) * band, s=noise.shape)
    return (field / field.std()).astype(np.float32)


@dataclass(frozen=True)
class Waves:
    """A smooth random function that can be evaluated at any points: a sum of a few plane waves."""

    vectors: np.ndarray  # (waves, 3), radians per mm
    phases: np.ndarray  # (waves,), radians

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength_mm: float, count: int = 7) -> Waves:
        """Draw `count` plane waves of about this wavelength."""
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = wavelength_mm * rng.uniform(0.7, 1.6, (count, 1))
        return cls(2 * np.pi * direction / length, rng.uniform(0, 2 * np.pi, count))

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the values at points in mm, with mean 0 and variance 1 over space."""
        total = np.zeros(np.broadcast(x, y, z).shape, np.float32)
        for (a, b, c), phase in zip(self.vectors.astype(np.float32), self.phases, strict=True):
            total += np.cos(a * x + b * y + c * z + np.float32(phase))
        return total * np.float32(np.sqrt(2 / len(self.phases)))
