"""Simulate the scan of one visit, resampled to the grid that both visits share."""

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.fields import smooth_field
from msseg_jax.simulate.synthetic.plan import Session

DISTORTION_MM, BIAS_MM, FLOW_MM = 30.0, 80.0, 8.0  # length scales of the random fields
LOCAL_MM = 4.0  # Gaussian standard deviation of the surroundings, for the local contrast
FLUID = 0.5  # relative to the brain's median; darker voxels are fluid
# Another protocol changes the intensity of each tissue. The change is interpolated between these
# intensities: background, fluid, between fluid and tissue, white matter, grey matter, lesions, and
# the brightest lesions.
TONES = (0.0, 0.3, 0.65, 0.9, 1.1, 1.4, 2.0)
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


def scan(
    head: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray, session: Session, grid: SourceGrid
) -> np.ndarray:
    """Simulate the scan of one visit, and resample it to `grid`.

    Args:
      head: (D, H, W) float32, image of the source with the lesions of this visit.
      brain: (D, H, W) bool.
      spacing_mm: (3,), voxel spacing of the source.
      session: settings of the scan.
      grid: the grid that both visits share.

    Returns:
      The image, grid.shape, float32.
    """
    rng = np.random.default_rng(session.seed)
    head = _appearance(head, brain, spacing_mm, session, rng)
    head = slice_profile(head, spacing_mm, session)
    if np.array_equal(session.pose, np.eye(4)) and (session.spacing_mm == spacing_mm).all():
        own, seen = SourceGrid(head.shape, np.eye(4)), head
    else:
        own = SourceGrid.over(head.shape, spacing_mm, session.spacing_mm)
        pose = _about_the_middle(session.pose, head.shape, spacing_mm)
        own = SourceGrid(own.shape, pose @ own.to_source)
        seen = _sample(head, own.to_source, own.shape, 3)
    seen = seen + np.float32(session.noise) * rng.standard_normal(seen.shape, np.float32)
    matrix, warp = _misalignment(head.shape, spacing_mm, session, grid)
    to_own = np.linalg.inv(own.to_source)
    warp = np.tensordot(to_own[:3, :3].astype(np.float32), warp, axes=1)
    return np.maximum(_sample(seen, to_own @ matrix, grid.shape, 1, warp), 0)


def seen_where(
    maps: np.ndarray, spacing_mm: np.ndarray, session: Session, grid: SourceGrid
) -> np.ndarray:
    """Resample maps of the head to `grid`, as they would appear in the scan of a visit.

    An expert would outline the lesions in this scan. Therefore the maps move with its registration
    error and its distortion, and they are averaged over its slices.

    Args:
      maps: (N, D, H, W) float32, on the grid of the source.
      spacing_mm: (3,), voxel spacing of the source.
      session: settings of the scan.
      grid: the grid that both visits share.

    Returns:
      The maps on `grid`, (N, *grid.shape) float32.
    """
    matrix, warp = _misalignment(maps.shape[1:], spacing_mm, session, grid)
    sharp = replace(session, blur_mm=0.0)
    averaged = (slice_profile(marks, spacing_mm, sharp) for marks in maps)
    return np.stack([_sample(marks, matrix, grid.shape, 1, warp) for marks in averaged])


def _misalignment(
    shape: tuple, spacing_mm: np.ndarray, session: Session, grid: SourceGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Return the registration error and the distortion that remain in a visit.

    The image of the visit at a voxel of `grid` shows the head at matrix @ voxel + warp.

    Returns:
      The matrix (4, 4), to voxel indices of the source, and the warp (3, *grid.shape) float32.
    """
    error = _about_the_middle(session.error, shape, spacing_mm)
    warp = np.zeros((3, *grid.shape), np.float32)
    if session.distortion_mm:
        rng = np.random.default_rng([session.seed, 1])  # so that images and labels warp alike
        for axis in warp:
            axis[...] = smooth_field(rng, grid.shape, _spacing(grid, spacing_mm), DISTORTION_MM)
        warp *= (session.distortion_mm / spacing_mm).astype(np.float32)[:, None, None, None]
    return error @ grid.to_source, warp


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


def _appearance(
    head: np.ndarray,
    brain: np.ndarray,
    spacing_mm: np.ndarray,
    session: Session,
    rng: np.random.Generator,
) -> np.ndarray:
    """Simulate the effects of flow, protocol and coil on the intensities, before sampling."""
    if session.flow:
        bright = np.clip(smooth_field(rng, head.shape, spacing_mm, FLOW_MM) - 1, 0, 1)
        fluid = np.clip((FLUID - head) / 0.2, 0, 1) * brain
        head = head + np.float32(session.flow) * bright * fluid
    if session.local_contrast:
        near = ndimage.gaussian_filter(head, LOCAL_MM / spacing_mm)
        head = np.maximum(head + np.float32(session.local_contrast) * (head - near), 0)
    head = np.maximum(head, 0) ** np.float32(session.gamma)
    if any(session.tones):
        head = head + np.interp(head, TONES, (0.0, *session.tones)).astype(np.float32)
    if session.bias:
        field = smooth_field(rng, head.shape, spacing_mm, BIAS_MM)
        head = head * np.exp(np.float32(session.bias) * np.clip(field, -2.5, 2.5))
    return head


def _spacing(grid: SourceGrid, spacing_mm: np.ndarray) -> np.ndarray:
    return np.linalg.norm(grid.to_source[:3, :3] * spacing_mm[:, None], axis=0)


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
