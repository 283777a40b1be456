"""Where the voxels of a patch come from: flips, rotation, scaling, bending, a moved first visit.

The voxels are looked up in the patient's volume, not in a patch that is already cut, so that what
turns into view is tissue and not padding. Each visit is interpolated only once.
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
    """How time01 is moved on time02, about the centre of the patch."""

    rotation: np.ndarray  # (3, 3)
    shift_voxels: np.ndarray  # (3,)


@dataclass(frozen=True)
class Spatial:
    """The changes to where a patch's voxels come from; by default there are none."""

    flips: tuple[bool, bool, bool] = (False, False, False)  # by array axis
    matrix: np.ndarray | None = None  # (3, 3), offsets from the patch's centre: patch to volume
    displacement: np.ndarray | None = None  # (3, n, n, n), control values of a spline, in its cells
    misregistration: Misregistration | None = None


@dataclass(frozen=True)
class Box:
    """The part of a volume in which a deformed patch is looked up, and the places in it."""

    corner: Corner
    shape: Shape
    places: np.ndarray | None  # (3, S^3) float32, voxel indices in the box; None: each voxel's own


def cut_deformed(
    patient: CachedPatient, corner: Corner, size: int, spatial: Spatial
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a patch of `size`^3 voxels; without deformation its first voxel is `corner`.

    A voxel p, as an offset from the centre of the patch, is looked up at q = matrix (p +
    displacement(p)), and in time01 at rotation q + shift. It is time01 that moves, because the
    targets mark what is seen at time02. Images are interpolated linearly. Brain and targets are
    taken from the nearest voxel. Flips come last.

    A place that lies wholly outside the brain in one visit is outside it for both: otherwise its
    BACKGROUND would look like a change beside the dark rim of the other visit. Targets stay there,
    as they do outside the brain of a plain crop: they belong to time02, which is not moved.

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
    flipped = tuple(axis - 3 for axis, flip in enumerate(spatial.flips) if flip)
    return np.flip(images, flipped), np.flip(targets, flipped), np.flip(brain, flipped)


def place_visits(corner: Corner, size: int, spatial: Spatial) -> tuple[Box, Box]:
    """Return where the voxels of time01, and those of time02 and the targets, are looked up."""
    offsets = _deformed(size, spatial)
    box02 = _box(corner, size, offsets)
    if spatial.misregistration is None:
        return box02, box02
    return _box(corner, size, _misplaced(size, offsets, spatial.misregistration)), box02


def _deformed(size: int, spatial: Spatial) -> np.ndarray | None:
    """Return offsets from the patch's centre, (3, S^3) float32; None if no voxel moves."""
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
    """Return matrix (3, 3) @ offsets (3, N).

    A BLAS would start threads for it, which would hinder those that cut the other patches.
    """
    i, j, k = offsets
    turned = np.empty_like(offsets)
    for row, (a, b, c) in zip(turned, matrix.astype(np.float32), strict=True):
        np.multiply(i, a, out=row)
        row += b * j
        row += c * k
    return turned


def _grid(size: int) -> np.ndarray:
    """Return the offsets of all voxels from the patch's centre, (3, S^3) float32."""
    along = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return np.stack(np.meshgrid(along, along, along, indexing="ij")).reshape(3, -1)


def _box(corner: Corner, size: int, offsets: np.ndarray | None) -> Box:
    """Return the smallest box of the volume with all voxels that interpolation needs."""
    if offsets is None:
        return Box(corner, (size, size, size), None)
    centre = (size - 1) / 2
    low = np.floor(offsets.min(axis=1) + centre).astype(int)
    high = np.floor(offsets.max(axis=1) + centre).astype(int) + 2  # one past the last needed
    places = offsets + (centre - low).astype(np.float32)[:, None]
    d, h, w = (int(c + v) for c, v in zip(corner, low, strict=True))
    depth, height, width = (high - low).tolist()
    return Box((d, h, w), (depth, height, width), np.maximum(places, 0, out=places))


def _linear(
    volume: np.ndarray, brain: np.ndarray, box: Box, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return intensities of one packed visit (D, H, W), and where there is brain to take them from.

    Between brain and background only the brain's voxels count. Otherwise the dark rim of a brain
    would be lost, and that of time01 more than that of time02.

    Returns:
      (S, S, S) float32 and (S, S, S) bool.
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
    seen = share > 1e-3  # with less, the quotient would be that of rounding errors
    np.divide(values, share, out=values, where=seen)
    return values.reshape(shape), seen.reshape(shape)


def interpolate(volume: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Interpolate a volume (D, H, W) float32 trilinearly at places (3, N) float32: (N,) float32.

    It returns what `ndimage.map_coordinates(order=1)` returns, but is faster
    (`python -m benchmarks.augmentation`).

    Args:
      places: voxel indices, from 0 to less than the last of each axis.
    """
    _, height, width = volume.shape
    plane, flat = height * width, volume.ravel()
    first = np.trunc(places)  # of the eight voxels around a place
    share = places - first
    voxel = _flat_index(first, volume.shape)

    def row(start: int) -> np.ndarray:
        # All indices lie in the box. With "clip" NumPy does not check them.
        near, far = (flat[k:].take(voxel, mode="clip") for k in (start, start + 1))
        return _mixed(near, far, share[2])

    above = _mixed(row(0), row(width), share[1])
    below = _mixed(row(plane), row(plane + width), share[1])
    return _mixed(above, below, share[0])


def _mixed(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return a + share (b - a), written into a; b is changed, too."""
    b -= a
    b *= share
    a += b
    return a


def _nearest(patient: CachedPatient, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return targets, (ceil(T / 8), S, S, S) in whole packed bytes, and brain, (S, S, S) bool."""
    targets, brain = (crop(a, box.corner, box.shape, 0) for a in (patient.targets, patient.brain))
    if box.places is None:
        return targets, brain
    voxel = _flat_index(np.rint(box.places), box.shape).reshape((size,) * 3)
    return (
        targets.reshape(len(targets), -1).take(voxel, axis=1, mode="clip"),
        brain.ravel().take(voxel, mode="clip"),
    )


def _flat_index(voxels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the places of voxels (3, N), whole numbers, in the flat array of a volume: (N,)."""
    i, j, k = voxels.astype(np.int32)
    return ((i * shape[1] + j) * shape[2] + k).astype(np.intp)
