"""Spatial augmentation: flips, rotation, scaling, elastic deformation and misregistration.

The voxels of a patch are looked up in the patient's whole volume, not in a patch that was cut
before. If a patch is rotated, its corners therefore contain tissue and not padding. Each visit is
interpolated only once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msseg_jax.data.augmentation.smooth import cells, spline_field
from msseg_jax.data.cache import CachedPatient
from msseg_jax.data.intensity import BACKGROUND
from msseg_jax.data.packing import PACKED_BACKGROUND, unpack_images
from msseg_jax.data.patches import Corner, Shape, crop


@dataclass(frozen=True)
class Misregistration:
    """A rigid motion of time01 relative to time02, about the centre of the patch."""

    rotation: np.ndarray  # (3, 3)
    shift_voxels: np.ndarray  # (3,)


@dataclass(frozen=True)
class Spatial:
    """The spatial changes to a patch. The defaults change nothing."""

    flips: tuple[bool, bool, bool] = (False, False, False)  # by array axis
    matrix: np.ndarray | None = None  # (3, 3), maps offsets from the patch's centre to the volume
    displacement: np.ndarray | None = None  # (3, n, n, n), control values of a spline, in cells
    misregistration: Misregistration | None = None


@dataclass(frozen=True)
class Box:
    """The part of a volume that a deformed patch needs, and the position of each voxel in it."""

    corner: Corner
    shape: Shape
    places: np.ndarray | None  # (3, S^3) float32, voxel indices in the box; None: no voxel moves


def cut_deformed(
    patient: CachedPatient, corner: Corner, size: int, spatial: Spatial
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a patch of `size`^3 voxels. Without deformation its first voxel is `corner`.

    Let p be the offset of a voxel from the centre of the patch. At time02 the voxel is looked up
    at q = matrix (p + displacement(p)), and at time01 at rotation q + shift. Time01 moves relative
    to most targets, because they mark what is seen at time02. Vanished lesions and all lesions of
    the first visit move with time01. Images are interpolated linearly. Brain and targets are taken
    from the nearest voxel. Flips are applied last.

    A voxel that lies entirely outside the brain in one visit counts as outside in both visits. If
    it did not, the BACKGROUND of one visit next to the dark rim of the other would look like a
    change. Targets are kept at such voxels, because they belong to time02, which does not move. A
    plain crop keeps targets outside the brain, too.

    Returns:
      images (2, S, S, S) float32, BACKGROUND outside the brain; targets (ceil(T / 8), S, S, S)
      uint8, packed; brain (S, S, S) bool.
    """
    box01, box02 = place_visits(corner, size, spatial)
    targets, brain = _nearest(patient, box02, size)
    if box01 is not box02 and patient.bits_of_time01:
        bits = np.uint8(patient.bits_of_time01)
        targets = targets & ~bits | _nearest(patient, box01, size)[0] & bits
    images = np.empty((2, *(size,) * 3), np.float32)
    for image, volume, box in zip(images, patient.images, (box01, box02), strict=True):
        image[...], seen = _linear(volume, patient.brain, box, size)
        brain = brain & seen
    np.copyto(images, np.float32(BACKGROUND), where=~brain)
    flipped = tuple(axis - 3 for axis, flip in enumerate(spatial.flips) if flip)
    return np.flip(images, flipped), np.flip(targets, flipped), np.flip(brain, flipped)


def place_visits(corner: Corner, size: int, spatial: Spatial) -> tuple[Box, Box]:
    """Return the positions of the voxels in time01, and those in time02 and the targets."""
    offsets = _deformed(size, spatial)
    box02 = _box(corner, size, offsets)
    if spatial.misregistration is None:
        return box02, box02
    return _box(corner, size, _misregistered(size, offsets, spatial.misregistration)), box02


def _deformed(size: int, spatial: Spatial) -> np.ndarray | None:
    """Return deformed offsets from the patch's centre, (3, S^3) float32; None if no voxel moves."""
    if spatial.matrix is None and spatial.displacement is None:
        return None
    offsets = _grid(size)
    if spatial.displacement is not None:
        cell_voxels = size / cells(spatial.displacement)
        offsets += spline_field(spatial.displacement * cell_voxels, size).reshape(3, -1)
    if spatial.matrix is not None:
        offsets = _transformed(spatial.matrix, offsets)
    return offsets


def _misregistered(size: int, offsets: np.ndarray | None, moved: Misregistration) -> np.ndarray:
    if offsets is None:
        offsets = _grid(size)
    offsets = _transformed(moved.rotation, offsets)
    offsets += moved.shift_voxels.astype(np.float32)[:, None]
    return offsets


def _transformed(matrix: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return matrix @ offsets, where the shapes are (3, 3) and (3, N).

    The operator `@` would call BLAS. Its threads would slow down those that cut other patches.
    """
    i, j, k = offsets
    transformed = np.empty_like(offsets)
    for row, (a, b, c) in zip(transformed, matrix.astype(np.float32), strict=True):
        np.multiply(i, a, out=row)
        row += b * j
        row += c * k
    return transformed


def _grid(size: int) -> np.ndarray:
    """Return the offsets of all voxels from the patch's centre, (3, S^3) float32."""
    along = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return np.stack(np.meshgrid(along, along, along, indexing="ij")).reshape(3, -1)


def _box(corner: Corner, size: int, offsets: np.ndarray | None) -> Box:
    """Return the smallest box of the volume that contains all voxels needed to interpolate."""
    if offsets is None:
        return Box(corner, (size, size, size), None)
    centre = (size - 1) / 2
    low = np.floor(offsets.min(axis=1) + centre).astype(int)
    high = np.floor(offsets.max(axis=1) + centre).astype(int) + 2  # one past the last voxel
    places = offsets + (centre - low).astype(np.float32)[:, None]
    d, h, w = (int(c + v) for c, v in zip(corner, low, strict=True))
    depth, height, width = (high - low).tolist()
    return Box((d, h, w), (depth, height, width), np.maximum(places, 0, out=places))


def _linear(
    volume: np.ndarray, brain: np.ndarray, box: Box, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate the intensities of one packed visit (D, H, W), using voxels of the brain only.

    If the background contributed at the border of the brain, the dark rim of the brain would be
    lost, more so at time01 than at time02.

    Returns:
      The intensities, (S, S, S) float32, and where the brain contributes to them, (S, S, S) bool.
    """
    region = unpack_images(crop(volume, box.corner, box.shape, PACKED_BACKGROUND))
    inside = crop(brain, box.corner, box.shape, False)
    if box.places is None:
        return region, inside
    shape = (size,) * 3
    values = interpolate(region, box.places)
    if inside.all():
        return values.reshape(shape), np.ones(shape, bool)
    share = interpolate(inside.astype(np.float32), box.places)
    seen = share > 1e-3  # below this, rounding errors dominate the quotient
    np.divide(values, share, out=values, where=seen)
    return values.reshape(shape), seen.reshape(shape)


def interpolate(volume: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Interpolate a volume (D, H, W) float32 trilinearly; return (N,) float32.

    The values are those of `ndimage.map_coordinates(order=1)`, but this function is faster
    (`python -m benchmarks.augmentation`).

    Args:
      places: (3, N) float32, voxel indices, at least 0 and less than the last index of each axis.
    """
    _, height, width = volume.shape
    plane, flat = height * width, volume.ravel()
    first = np.trunc(places)  # the first of the eight voxels around each position
    share = places - first
    voxel = _flat_index(first, volume.shape)

    def row(start: int) -> np.ndarray:
        # mode="clip" skips NumPy's check of the indices, which all lie inside the box.
        near, far = (flat[k:].take(voxel, mode="clip") for k in (start, start + 1))
        return _blended(near, far, share[2])

    above = _blended(row(0), row(width), share[1])
    below = _blended(row(plane), row(plane + width), share[1])
    return _blended(above, below, share[0])


def _blended(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return a + share (b - a). The result is written into `a`, and `b` is overwritten."""
    b -= a
    b *= share
    a += b
    return a


def _nearest(patient: CachedPatient, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Take targets and brain from the nearest voxels.

    Returns:
      Targets, (ceil(T / 8), S, S, S) uint8, still packed, and brain, (S, S, S) bool.
    """
    targets, brain = (crop(a, box.corner, box.shape, 0) for a in (patient.targets, patient.brain))
    if box.places is None:
        return targets, brain
    voxel = _flat_index(np.rint(box.places), box.shape).reshape((size,) * 3)
    return (
        targets.reshape(len(targets), -1).take(voxel, axis=1, mode="clip"),
        brain.ravel().take(voxel, mode="clip"),
    )


def _flat_index(voxels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the flat index, (N,), of each voxel in a volume. `voxels` (3, N) has whole numbers."""
    i, j, k = voxels.astype(np.int32)
    return ((i * shape[1] + j) * shape[2] + k).astype(np.intp)
