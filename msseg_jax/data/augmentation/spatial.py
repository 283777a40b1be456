"""Where the voxels of a patch are taken from: flipped, turned, scaled, bent, visits apart.

The voxels are looked up in the patient's volume, not in a patch that is already cut, so that what
turns into view is tissue and not padding. Each visit is interpolated once, whatever is done.
"""

from dataclasses import dataclass

import numpy as np

from msseg_jax.data.augmentation.smooth import cells, spline_field
from msseg_jax.data.cache import CachedPatient
from msseg_jax.data.intensity import BACKGROUND
from msseg_jax.data.packing import PACKED_BACKGROUND, unpack_images
from msseg_jax.data.patches import crop


@dataclass(frozen=True)
class Misregistration:
    """How time01 lies on time02, about the centre of the patch."""

    rotation: np.ndarray  # (3, 3)
    shift_voxels: np.ndarray  # (3,)


@dataclass(frozen=True)
class Spatial:
    """What is done to the places of a patch's voxels; nothing, unless it is said."""

    flips: tuple[bool, bool, bool] = (False, False, False)  # by array axis
    matrix: np.ndarray | None = None  # (3, 3), offsets from the patch's centre: patch to volume
    displacement: np.ndarray | None = None  # (3, n, n, n), control values of a spline, in its cells
    misregistration: Misregistration | None = None


@dataclass(frozen=True)
class Box:
    """A part of the volume, and places in it: what a deformed patch is looked up in."""

    corner: tuple[int, int, int]  # its first voxel, which may lie outside the volume
    shape: tuple[int, int, int]
    places: np.ndarray | None  # (3, S^3) float32, voxel indices in the box; None: each voxel's own


def cut_deformed(
    patient: CachedPatient, corner: tuple[int, int, int], size: int, spatial: Spatial
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A patch of `size`^3 voxels whose first voxel would be `corner`, were it not deformed.

    A voxel p, as an offset from the centre of the patch, is looked up at q = matrix (p +
    displacement(p)), in time01 at rotation q + shift. It is time01 that moves, because the targets
    mark what is seen at time02. Images are interpolated linearly, brain and targets taken from the
    nearest voxel; flips come last.

    A place that falls wholly outside the brain in one visit is outside it for both: its
    BACKGROUND against the other's dark rim would look like a change. Targets stay there, as they do
    outside the brain of a plain crop: they are of time02, which is not moved.

    Returns:
      images (2, S, S, S) float32, BACKGROUND outside the brain; targets (ceil(T / 8), S, S, S)
      uint8, packed; brain (S, S, S) bool.
    """
    box01, box02 = place_visits(corner, size, spatial)
    targets, brain = _nearest(patient, box02, size)
    images = np.empty((2, *(size,) * 3), np.float32)
    for image, volume, box in zip(images, patient.images, (box01, box02), strict=True):
        image[...], seen = _linear(volume, patient.brain, box, size)
        brain = brain & seen
    np.copyto(images, np.float32(BACKGROUND), where=~brain)
    flipped = [axis - 3 for axis, flip in enumerate(spatial.flips) if flip]
    return tuple(np.flip(array, flipped) for array in (images, targets, brain))


def place_visits(corner: tuple[int, int, int], size: int, spatial: Spatial) -> tuple[Box, Box]:
    """Where the voxels of time01, and those of time02 and the targets, are looked up."""
    offsets = _deformed(size, spatial)
    box02 = _box(corner, size, offsets)
    if spatial.misregistration is None:
        return box02, box02
    return _box(corner, size, _misplaced(size, offsets, spatial.misregistration)), box02


def _deformed(size: int, spatial: Spatial) -> np.ndarray | None:
    """Offsets from the patch's centre, (3, S^3) float32; None where no voxel moves."""
    if spatial.matrix is None and spatial.displacement is None:
        return None
    offsets = _grid(size)
    if spatial.displacement is not None:
        cell_voxels = size / cells(spatial.displacement)
        offsets += spline_field(spatial.displacement * cell_voxels, size).reshape(3, -1)
    if spatial.matrix is not None:
        offsets = _turned(spatial.matrix, offsets)
    return offsets


def _misplaced(size: int, offsets: np.ndarray | None, moved: Misregistration) -> np.ndarray:
    if offsets is None:
        offsets = _grid(size)
    offsets = _turned(moved.rotation, offsets)
    offsets += moved.shift_voxels.astype(np.float32)[:, None]
    return offsets


def _turned(matrix: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """matrix (3, 3) @ offsets (3, N), without the threads that a BLAS would start for it: they are
    in the way of those that cut the other patches."""
    i, j, k = offsets
    turned = np.empty_like(offsets)
    for row, (a, b, c) in zip(turned, matrix.astype(np.float32), strict=True):
        np.multiply(i, a, out=row)
        row += b * j
        row += c * k
    return turned


def _grid(size: int) -> np.ndarray:
    along = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return np.stack(np.meshgrid(along, along, along, indexing="ij")).reshape(3, -1)


def _box(corner: tuple[int, int, int], size: int, offsets: np.ndarray | None) -> Box:
    """The smallest box of the volume with all voxels that interpolation needs."""
    if offsets is None:
        return Box(corner, (size,) * 3, None)
    centre = (size - 1) / 2
    low = np.floor(offsets.min(axis=1) + centre).astype(int)
    high = np.floor(offsets.max(axis=1) + centre).astype(int) + 2  # one past the last needed
    places = offsets + (centre - low).astype(np.float32)[:, None]
    first = tuple(int(c + v) for c, v in zip(corner, low, strict=True))
    return Box(first, tuple((high - low).tolist()), np.maximum(places, 0, out=places))


def _linear(
    volume: np.ndarray, brain: np.ndarray, box: Box, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Intensities of one packed visit (D, H, W), and where there is brain to take them from.

    Both (S, S, S), float32 and bool.

    Between brain and background the brain's voxels alone count: otherwise the dark rim of a brain
    would be lost, and that of time01 more than that of time02.
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
    seen = share > 1e-3  # with less, the rounding of places is what is divided
    np.divide(values, share, out=values, where=seen)
    return values.reshape(shape), seen.reshape(shape)


def interpolate(volume: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Trilinear interpolation of (D, H, W) float32 at (3, N) float32 places: (N,) float32.

    Places are voxel indices, from 0 to less than the last of each axis. What
    `ndimage.map_coordinates(order=1)` gives, only faster (`python -m benchmarks.augmentation`).
    """
    _, height, width = volume.shape
    plane, flat = height * width, volume.ravel()
    first = np.trunc(places)  # of the eight voxels around a place
    share = places - first
    voxel = _flat_index(first, volume.shape)

    def row(start: int) -> np.ndarray:
        # All indices lie in the box: "clip" only says that they need not be checked.
        near, far = (flat[k:].take(voxel, mode="clip") for k in (start, start + 1))
        return _mixed(near, far, share[2])

    above = _mixed(row(0), row(width), share[1])
    below = _mixed(row(plane), row(plane + width), share[1])
    return _mixed(above, below, share[0])


def _mixed(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """a + share (b - a), in place."""
    b -= a
    b *= share
    a += b
    return a


def _nearest(patient: CachedPatient, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets (packed: a byte is taken whole, whatever maps are in it) and brain."""
    targets, brain = (crop(a, box.corner, box.shape, 0) for a in (patient.targets, patient.brain))
    if box.places is None:
        return targets, brain
    voxel = _flat_index(np.rint(box.places), box.shape).reshape((size,) * 3)
    return (
        targets.reshape(len(targets), -1).take(voxel, axis=1, mode="clip"),
        brain.ravel().take(voxel, mode="clip"),
    )


def _flat_index(voxels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(3, N) whole numbers to places in the flat array of a volume, (N,)."""
    i, j, k = voxels.astype(np.int32)
    return ((i * shape[1] + j) * shape[2] + k).astype(np.intp)
