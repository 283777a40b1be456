"""Simulate the scan of one visit, resampled to the grid that both visits share."""

from dataclasses import dataclass, replace
from functools import cached_property

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.anatomy import Anatomy
from msseg_jax.simulate.synthetic.fields import smooth_field
from msseg_jax.simulate.synthetic.sessions import Session
from msseg_jax.simulate.synthetic.source import Source

# Length scales of the random fields
DISTORTION_MM, BIAS_MM, FLOW_MM, CISTERN_FLOW_MM = 30.0, 80.0, 8.0, 5.0
LOCAL_MM = 4.0  # Gaussian standard deviation of the surroundings, for the local contrast
FLUID = 0.5  # relative to the brain's median; darker voxels are fluid
PARTLY_FLUID = 0.85  # voxels between FLUID and this value are partly filled with fluid
# Another protocol changes the intensity of each tissue. The change is interpolated between these
# intensities: background, fluid, between fluid and tissue, white matter, grey matter, lesions, and
# the brightest lesions.
TONES = (0.0, 0.3, 0.65, 0.9, 1.1, 1.4, 2.0)
IDENTITY = np.eye(4)
NOTHING = 0.02  # intensity, relative to the brain's median, below which there is no tissue
FULL_WIDTH = 2.355  # full width at half maximum of a Gaussian with standard deviation 1


@dataclass(frozen=True)
class SourceGrid:
    """A grid of voxels, placed relative to the grid of a source."""

    shape: tuple[int, int, int]
    to_source: np.ndarray  # (4, 4), voxel indices of this grid to those of the source

    @staticmethod
    def over(shape: tuple, spacing_mm: np.ndarray, new_mm: np.ndarray) -> "SourceGrid":
        """Return a grid with voxels of `new_mm` (3,) and the same field of view.

        Args:
          shape: shape of the source's grid.
          spacing_mm: (3,), voxel spacing of the source's grid.
          new_mm: (3,), voxel spacing of the new grid.
        """
        scale = np.asarray(new_mm) / spacing_mm
        sides = np.maximum(np.rint(np.array(shape) / scale), 1).astype(int)
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = (np.array(shape) - 1) / 2 - scale * (sides - 1) / 2
        return SourceGrid(tuple(sides.tolist()), matrix)


@dataclass(frozen=True)
class SimulatedVisit:
    """One visit of the head of a source: makes its scan, and shows where things are seen in it."""

    source: Source
    anatomy: Anatomy
    session: Session
    grid: SourceGrid  # the grid that both visits share

    def scan(self, head: np.ndarray) -> np.ndarray:
        """Simulate the scan, and resample it to `grid`.

        Args:
          head: (D, H, W) float32, image of the source with the lesions of this visit.

        Returns:
          The image, grid.shape, float32.
        """
        session = self.session
        rng = np.random.default_rng(session.seed)
        head = slice_profile(self._appearance(head, rng), self.source.spacing_mm, session)
        seen = self._sampled(head)
        noise = np.float32(session.noise) * rng.standard_normal(seen.shape, np.float32)
        if session.stripped_mm is not None:
            noise *= seen > NOTHING  # a program has set what it removed to zero
        return np.maximum(self._registered(seen + noise), 0)

    def see(self, share: np.ndarray) -> np.ndarray:
        """Resample a map of the head to `grid`, as it would appear in the scan.

        An expert would outline the lesions in this scan. Therefore the map moves with the
        registration error and the distortion, and it is averaged over the slices.

        Args:
          share: (D, H, W) float32, on the grid of the source.

        Returns:
          The map on `grid`, float32.
        """
        if not share.any():
            return np.zeros(self.grid.shape, np.float32)
        sharp = replace(self.session, blur_mm=0.0)
        return self._registered(self._sampled(slice_profile(share, self.source.spacing_mm, sharp)))

    def _sampled(self, array: np.ndarray) -> np.ndarray:
        """Resample an array from the grid of the source to that of the scanner."""
        if self._own.to_source is IDENTITY:
            return array
        return _sample(array, self._own.to_source, self._own.shape, 3)

    def _registered(self, array: np.ndarray) -> np.ndarray:
        """Resample an array from the grid of the scanner to `grid`."""
        to_own = np.linalg.inv(self._own.to_source)
        warp = np.tensordot(to_own[:3, :3].astype(np.float32), self._warp, axes=1)
        return _sample(array, to_own @ self._matrix, self.grid.shape, 1, warp)

    @cached_property
    def _own(self) -> SourceGrid:
        """The grid of the scanner, in the pose of the head."""
        session, shape = self.session, self.source.brain.shape
        spacing_mm = self.source.spacing_mm
        if np.array_equal(session.pose, IDENTITY) and (session.spacing_mm == spacing_mm).all():
            return SourceGrid(shape, IDENTITY)
        own = SourceGrid.over(shape, spacing_mm, session.spacing_mm)
        pose = _about_the_middle(session.pose, shape, spacing_mm)
        return SourceGrid(own.shape, pose @ own.to_source)

    @cached_property
    def _matrix(self) -> np.ndarray:
        """The registration error. The visit at a voxel shows the head at _matrix @ voxel + _warp.

        (4, 4), voxel indices of `grid` to those of the source.
        """
        spacing_mm = self.source.spacing_mm
        error = _about_the_middle(self.session.error, self.source.brain.shape, spacing_mm)
        return error @ self.grid.to_source

    @cached_property
    def _warp(self) -> np.ndarray:
        """The smooth distortion and the widening of fluid spaces, (3, *grid.shape) float32.

        In voxels of the source.
        """
        session, grid = self.session, self.grid
        per_mm = (1 / self.source.spacing_mm).astype(np.float32)[:, None, None, None]
        warp = np.zeros((3, *grid.shape), np.float32)
        if session.distortion_mm:
            grid_mm = np.linalg.norm(grid.to_source[:3, :3] / per_mm[:, :, 0, 0], axis=0)
            rng = np.random.default_rng([session.seed, 1])
            for axis in warp:
                axis[...] = smooth_field(rng, grid.shape, grid_mm, DISTORTION_MM)
            warp *= np.float32(session.distortion_mm)
        if session.atrophy_mm:
            # Where tissue was, the fluid next to it is seen.
            for axis, direction in zip(warp, self.anatomy.towards_fluid, strict=True):
                there = _sample(direction, grid.to_source, grid.shape, 1)
                axis += np.float32(session.atrophy_mm) * there
        return warp * per_mm

    def _appearance(self, head: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Simulate the effects of flow, protocol, coil and masks, before sampling."""
        session, spacing_mm, brain = self.session, self.source.spacing_mm, self.source.brain
        if session.flow:
            bright = np.clip(smooth_field(rng, head.shape, spacing_mm, FLOW_MM) - 1, 0, 1)
            fluid = np.clip((FLUID - head) / 0.2, 0, 1) * brain
            head = head + np.float32(session.flow) * bright * fluid
        if session.cistern_flow:
            bright = np.clip(smooth_field(rng, head.shape, spacing_mm, CISTERN_FLOW_MM), 0, 1.5)
            fluid = np.clip((PARTLY_FLUID - head) / (PARTLY_FLUID - FLUID), 0, 1)
            head = head + np.float32(session.cistern_flow) * bright * fluid * self.anatomy.cisterns
        if session.local_contrast:
            near = ndimage.gaussian_filter(head, LOCAL_MM / spacing_mm)
            head = np.maximum(head + np.float32(session.local_contrast) * (head - near), 0)
        head = np.maximum(head, 0) ** np.float32(session.gamma)
        if any(session.tones):
            head = head + np.interp(head, TONES, (0.0, *session.tones)).astype(np.float32)
        if session.bias:
            field = smooth_field(rng, head.shape, spacing_mm, BIAS_MM)
            head = head * np.exp(np.float32(session.bias) * np.clip(field, -2.5, 2.5))
        if session.stripped_mm is not None:
            head = head * widened(brain, session.stripped_mm, spacing_mm)
        return head


def slice_profile(array: np.ndarray, spacing_mm: np.ndarray, session: Session) -> np.ndarray:
    """Smooth an array on the source's grid to simulate the voxels and the blur of a session.

    The source is already averaged over its own voxels. Therefore only the additional width of the
    session's voxels is applied.
    """
    added_mm = np.sqrt(np.maximum(session.spacing_mm**2 - spacing_mm**2, 0)) / FULL_WIDTH
    sigma_mm = np.hypot(added_mm, session.blur_mm)
    if not sigma_mm.any():
        return array
    return ndimage.gaussian_filter(array, sigma_mm / spacing_mm)


def widened(mask: np.ndarray, by_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Return a mask (D, H, W) bool with a margin of `by_mm` around it."""
    if by_mm == 0:
        return mask
    return ndimage.distance_transform_edt(~mask, spacing_mm) <= by_mm


def _about_the_middle(motion: np.ndarray, shape: tuple, spacing_mm: np.ndarray) -> np.ndarray:
    """Convert a motion (4, 4) in mm about the middle of a grid to one in voxel indices."""
    middle = nib.affines.from_matvec(np.diag(spacing_mm), -spacing_mm * (np.array(shape) - 1) / 2)
    return np.linalg.inv(middle) @ motion @ middle


def _sample(
    array: np.ndarray, matrix: np.ndarray, shape: tuple, order: int, warp: np.ndarray | None = None
) -> np.ndarray:
    """Sample `array` at matrix @ voxel + warp for each voxel of `shape`. Return float32."""
    if warp is None or not warp.any():
        return ndimage.affine_transform(
            array, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=order, mode="nearest",
            output=np.float32,
        )  # fmt: skip
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    places = warp.astype(np.float32)
    for row, line in zip(places, matrix[:3].astype(np.float32), strict=True):
        row += line[3]
        row += line[0] * axes[0][:, None, None] + line[1] * axes[1][:, None] + line[2] * axes[2]
    return ndimage.map_coordinates(array, places, order=order, mode="nearest", output=np.float32)
