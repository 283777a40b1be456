"""Resample both visits to the middle space, the grid half-way between them."""

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from msseg_jax.data.quality import LEAST_CORRELATION
from msseg_jax.prepare.images import is_set, volume_ml
from msseg_jax.prepare.registration import corners_of, coverage, half_of, matrix_of, on_grid
from msseg_jax.prepare.visits import Registered, Visit
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.alignment import Alignment, measure_alignment
from msseg_jax.volumes.coverage import empty_parts
from msseg_jax.volumes.grids import bounding_box
from msseg_jax.volumes.pair import CODES

# Largest distance that may be left between the visits after registration, mean over the brain. From
# 1 mm on, `data.quality` warns. In thick, noisy slices the measured distance itself is uncertain by
# more than half a millimetre.
FAILED_MM = 2.0


@dataclass(frozen=True)
class Middle:
    """Both visits on one grid."""

    images: tuple[sitk.Image, sitk.Image]  # float32, original values, 0 outside the field of view
    brain: sitk.Image  # uint8, union of both brain masks, limited to where both visits have data
    unseen_ml: float  # volume of brain that only one visit has in its field of view
    empty_ml: tuple[float, float]  # volume of brain in view where only this visit has no data
    no_data: sitk.Image | None  # uint8, these parts: CODES for each visit; None if there are none
    to_visits: tuple[sitk.Transform, sitk.Transform]  # from the middle space to each visit


def bring_to_middle(registered: Registered) -> Middle:
    """Resample both visits to the middle space with linear interpolation.

    Both visits are interpolated, so both are blurred in the same way. The axes of the grid are
    half-way between those of the scans. Along each axis, its voxels are as small as the smaller
    ones of both scans. It covers the field of view that both scans share.
    """
    half = half_of(registered.transform)  # from the middle to the second; its inverse to the first
    to_visits = (half.GetInverse(), half)
    first, second = registered.visits
    scanned = (first.scan.image, second.scan.image)
    grid = _grid(scanned, to_visits)
    # The masks come before the images, which need much more memory.
    unseen_ml = _unseen_ml(first, second, registered.transform) + _unseen_ml(
        second, first, registered.transform.GetInverse()
    )
    brain = _brain_on(grid, registered.visits, to_visits)
    images = (
        sitk.Resample(scanned[0], grid, to_visits[0], sitk.sitkLinear, 0.0, sitk.sitkFloat32),
        sitk.Resample(scanned[1], grid, to_visits[1], sitk.sitkLinear, 0.0, sitk.sitkFloat32),
    )
    no_data, empty_ml = _find_no_data(brain, images, (first, second), to_visits)
    if no_data is not None:
        brain = brain & (no_data == 0)
    return Middle(images, brain, unseen_ml, empty_ml, no_data, to_visits)


def _brain_on(
    grid: sitk.Image,
    visits: tuple[Visit, Visit],
    to_visits: tuple[sitk.Transform, sitk.Transform],
) -> sitk.Image:
    """Return the union of both brains where both visits are in view: uint8."""
    first, second = (
        on_grid(visit.brain, grid, to_visit)
        for visit, to_visit in zip(visits, to_visits, strict=True)
    )
    brain = first | second
    for visit, to_visit in zip(visits, to_visits, strict=True):
        brain &= coverage(visit.scan.image, grid, to_visit)
    return brain


def _find_no_data(
    brain: sitk.Image,
    images: tuple[sitk.Image, sitk.Image],
    visits: tuple[Visit, Visit],
    to_visits: tuple[sitk.Transform, sitk.Transform],
) -> tuple[sitk.Image | None, tuple[float, float]]:
    """Return the parts of the brain where one visit has no data, and their volumes in ml.

    Returns:
      The parts as in `Middle.no_data`, and the volume for each visit.
    """
    voxel_mm3 = float(np.prod(brain.GetSpacing()))
    box = bounding_box(is_set(brain))  # the brain fills less than half of the image
    inside = is_set(brain)[box].copy()
    empty = [
        is_set(on_grid(visit.scan.empty, brain, to_visit))[box].copy()
        if visit.scan.empty is not None
        else np.zeros(inside.shape, bool)
        for visit, to_visit in zip(visits, to_visits, strict=True)
    ]
    arrays = [sitk.GetArrayViewFromImage(image).T[box] for image in images]
    first, second = (
        empty_parts(empty[one], empty[other], arrays[other], inside, voxel_mm3)
        for one, other in ((0, 1), (1, 0))
    )
    first_ml, second_ml = (float(part.sum() * voxel_mm3 / 1000) for part in (first, second))
    if not (first.any() or second.any()):
        return None, (0.0, 0.0)
    codes = np.zeros(brain.GetSize()[::-1], np.uint8)
    codes.T[box] = CODES[0] * first + CODES[1] * second
    no_data = sitk.GetImageFromArray(codes)
    no_data.CopyInformation(brain)
    return no_data, (first_ml, second_ml)


def _unseen_ml(visit: Visit, other: Visit, transform: sitk.Transform) -> float:
    """Return the volume of a visit's brain that is outside the other's field of view, in ml."""
    outside = visit.brain & (coverage(other.scan.image, visit.brain, transform) == 0)
    return volume_ml(outside)


def _grid(
    scanned: tuple[sitk.Image, sitk.Image], to_visits: tuple[sitk.Transform, sitk.Transform]
) -> sitk.Image:
    """Return the grid of the middle space, as an empty image."""
    axes, spacings_mm = zip(*map(_axes_in_middle, scanned, to_visits), strict=True)
    between = Rotation.from_matrix(axes[0].T @ axes[1]).as_rotvec() / 2
    axes = axes[0] @ Rotation.from_rotvec(between).as_matrix()
    spacing_mm = np.minimum(*spacings_mm)
    # The field of view that both scans share, along the new axes.
    spans = []
    for image, to_visit in zip(scanned, to_visits, strict=True):
        back = to_visit.GetInverse()
        corners = [back.TransformPoint(corner) for corner in corners_of(image).tolist()]
        spans.append(np.array(corners) @ axes)
    low = np.max([span.min(axis=0) for span in spans], axis=0)
    high = np.min([span.max(axis=0) for span in spans], axis=0)
    shape = np.maximum(np.round((high - low) / spacing_mm), 1).astype(int)
    grid = sitk.Image(shape.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing_mm.tolist())
    grid.SetDirection(axes.ravel().tolist())
    grid.SetOrigin((axes @ (low + spacing_mm / 2)).tolist())
    return grid


def _axes_in_middle(image: sitk.Image, to_visit: sitk.Transform) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions of a scan's axes in the middle space, and the voxel side along each.

    The directions are the columns of a rotation matrix. They are ordered and flipped so that the
    first is nearest to x, the second to y and the third to z.
    """
    turn, _ = matrix_of(to_visit)
    axes = turn.T @ np.array(image.GetDirection()).reshape(3, 3)
    order = _nearest_axes(axes)
    axes = axes[:, order] * np.sign(np.diag(axes[:, order]))
    return axes, np.array(image.GetSpacing())[order]


def _nearest_axes(axes: np.ndarray) -> list[int]:
    """Return the index of the column that is nearest to x, y and z. Each column is used once."""
    orders = itertools.permutations(range(3))
    return list(max(orders, key=lambda order: np.abs(np.diag(axes[:, list(order)])).sum()))


def check_match(middle: Middle, names: str) -> Alignment:
    """Measure the motion that is left between the visits inside the brain.

    Args:
      names: names of the visits, for the message.

    Raises:
      InputError: The motion is so large that the registration has failed.
    """
    brain = sitk.GetArrayViewFromImage(middle.brain).T.view(bool)
    first, second = (sitk.GetArrayViewFromImage(image).T for image in middle.images)
    alignment = measure_alignment(first, second, brain, np.array(middle.brain.GetSpacing()))
    if not (alignment.correlation >= LEAST_CORRELATION and alignment.displacement_mm <= FAILED_MM):
        raise InputError(
            f"{names}: the visits are not aligned after registration. Edges inside the brain have "
            f"a correlation of {alignment.correlation:.2f} (expected at least {LEAST_CORRELATION}) "
            f"and lie {alignment.displacement_mm:.1f} mm apart (expected at most {FAILED_MM:g} "
            "mm). Check that both are FLAIRs of one patient, with most of the brain in view."
        )
    return alignment
