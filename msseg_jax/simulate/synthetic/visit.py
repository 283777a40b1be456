"""What a scanner makes of a head on another day, brought back to the grid that visits share."""

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.fields import smooth_field
from msseg_jax.simulate.synthetic.plan import Session

DISTORTION_MM, BIAS_MM, FLOW_MM = 30.0, 80.0, 8.0  # over which the fields vary
LOCAL_MM = 4.0  # what is near, for the local contrast
FLUID = 0.5  # of the brain's median: darker is fluid
# What another protocol shows otherwise is given at these brightnesses: nothing, fluid, what is
# between, white matter, grey matter, lesions, and the brightest of them.
TONES = (0.0, 0.3, 0.65, 0.9, 1.1, 1.4, 2.0)
FULL_WIDTH = 2.355  # at half maximum, of a Gaussian of standard deviation 1


@dataclass(frozen=True)
class SourceGrid:
    """A grid in a source's space."""

    shape: tuple[int, int, int]
    to_source: np.ndarray  # (4, 4), its voxel indices to the source's

    @staticmethod
    def over(shape: tuple, spacing_mm: np.ndarray, new_mm: np.ndarray) -> "SourceGrid":
        """Voxels of (3,) mm over the field of view of (shape, spacing_mm)."""
        scale = np.asarray(new_mm) / spacing_mm
        sides = np.maximum(np.rint(np.array(shape) / scale), 1).astype(int)
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = (np.array(shape) - 1) / 2 - scale * (sides - 1) / 2
        return SourceGrid(tuple(sides.tolist()), matrix)


def scan(
    head: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray, session: Session, grid: SourceGrid
) -> np.ndarray:
    """One visit on `grid`: grid.shape, float32.

    Args:
      head: (D, H, W) float32, the source's, with the lesions of this visit.
      brain: (D, H, W) bool.
      grid: that both visits share.
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
    matrix, warp = _left_over(head.shape, spacing_mm, session, grid)
    to_own = np.linalg.inv(own.to_source)
    warp = np.tensordot(to_own[:3, :3].astype(np.float32), warp, axes=1)
    return np.maximum(_sample(seen, to_own @ matrix, grid.shape, 1, warp), 0)


def seen_where(
    maps: np.ndarray, spacing_mm: np.ndarray, session: Session, grid: SourceGrid
) -> np.ndarray:
    """Where a visit shows what maps (N, D, H, W) float32 of its head mark: (N, *grid.shape).

    That is where an expert who draws on this visit would mark it: what registration and distortion
    leave moves it, and slices average it.
    """
    matrix, warp = _left_over(maps.shape[1:], spacing_mm, session, grid)
    sharp = replace(session, blur_mm=0.0)
    averaged = (slice_profile(marks, spacing_mm, sharp) for marks in maps)
    return np.stack([_sample(marks, matrix, grid.shape, 1, warp) for marks in averaged])


def _left_over(
    shape: tuple, spacing_mm: np.ndarray, session: Session, grid: SourceGrid
) -> tuple[np.ndarray, np.ndarray]:
    """What a visit shows at a voxel of `grid` lies in its head at matrix @ voxel + warp.

    Returns:
      The matrix (4, 4), to voxel indices of the source, and the warp (3, *grid.shape) float32.
    """
    error = _about_the_middle(session.error, shape, spacing_mm)
    warp = np.zeros((3, *grid.shape), np.float32)
    if session.distortion_mm:
        rng = np.random.default_rng([session.seed, 1])  # the same for images and labels
        for axis in warp:
            axis[...] = smooth_field(rng, grid.shape, _spacing(grid, spacing_mm), DISTORTION_MM)
        warp *= (session.distortion_mm / spacing_mm).astype(np.float32)[:, None, None, None]
    return error @ grid.to_source, warp


def slice_profile(array: np.ndarray, spacing_mm: np.ndarray, session: Session) -> np.ndarray:
    """An array of the source's grid as larger voxels see it: averaged over what they add."""
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
    """Tissue and coil: the signal before it is sampled."""
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
    """A motion (4, 4) in mm about the middle of a grid, as one of voxel indices."""
    middle = nib.affines.from_matvec(np.diag(spacing_mm), -spacing_mm * (np.array(shape) - 1) / 2)
    return np.linalg.inv(middle) @ motion @ middle


def _sample(
    array: np.ndarray, matrix: np.ndarray, shape: tuple, order: int, warp: np.ndarray | None = None
) -> np.ndarray:
    """`array` at matrix @ (voxels of `shape`) + warp: float32."""
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
