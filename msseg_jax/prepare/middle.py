"""The middle space: half-way between the visits, where both are resampled once."""

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from msseg_jax.data.quality import LEAST_CORRELATION
from msseg_jax.prepare.images import array_of, volume_ml
from msseg_jax.prepare.registration import corners_of, coverage, half_of, matrix_of, on_grid
from msseg_jax.prepare.visits import Registered, Visit
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.alignment import Alignment, measure_alignment

# Left between the visits, mean over the brain; from 1 mm on it is warned of (`data.quality`). In
# thick noisy slices the measure itself is uncertain by more than half a millimetre.
FAILED_MM = 2.0


@dataclass(frozen=True)
class Middle:
    """Both visits on one grid."""

    images: tuple[sitk.Image, sitk.Image]  # float32, as scanned, 0 outside their fields of view
    brain: sitk.Image  # uint8, of either visit, where both have data
    unseen_ml: float  # brain that lies outside the other visit's field of view
    to_visits: tuple[sitk.Transform, sitk.Transform]  # from points of the middle space


def bring_to_middle(registered: Registered) -> Middle:
    """Resample both visits half-way, linearly: what interpolation blurs, it blurs in both.

    The grid's axes are half-way between those of the scans, its voxels as small as the smaller of
    both along each axis, and it covers what both have in view.
    """
    half = half_of(registered.transform)  # middle to second; backwards, middle to first
    to_visits = (half.GetInverse(), half)
    first, second = registered.visits
    scanned = (first.scan.image, second.scan.image)
    grid = _grid(scanned, to_visits)
    images = (
        sitk.Resample(scanned[0], grid, to_visits[0], sitk.sitkLinear, 0.0, sitk.sitkFloat32),
        sitk.Resample(scanned[1], grid, to_visits[1], sitk.sitkLinear, 0.0, sitk.sitkFloat32),
    )
    seen = [coverage(image, grid, t) for image, t in zip(scanned, to_visits, strict=True)]
    brains = [
        on_grid(visit.brain, grid, to_visit)
        for visit, to_visit in zip(registered.visits, to_visits, strict=True)
    ]
    brain = (brains[0] | brains[1]) & seen[0] & seen[1]
    unseen_ml = _unseen_ml(first, second, registered.transform) + _unseen_ml(
        second, first, registered.transform.GetInverse()
    )
    return Middle(images, brain, unseen_ml, to_visits)


def _unseen_ml(visit: Visit, other: Visit, transform: sitk.Transform) -> float:
    """Brain of a visit outside the other's field of view."""
    outside = visit.brain & (coverage(other.scan.image, visit.brain, transform) == 0)
    return volume_ml(outside)


def _grid(
    scanned: tuple[sitk.Image, sitk.Image], to_visits: tuple[sitk.Transform, sitk.Transform]
) -> sitk.Image:
    """The middle space's grid, as an image of nothing."""
    axes, spacings_mm = zip(*map(_axes_in_middle, scanned, to_visits), strict=True)
    between = Rotation.from_matrix(axes[0].T @ axes[1]).as_rotvec() / 2
    axes = axes[0] @ Rotation.from_rotvec(between).as_matrix()
    spacing_mm = np.minimum(*spacings_mm)
    # What both have in view, along the new axes.
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
    """Directions of a scan's axes in the middle space, those nearest to x, y, z first to last and
    pointing as they do, as the columns of a rotation; and the voxel side along each."""
    turn, _ = matrix_of(to_visit)
    axes = turn.T @ np.array(image.GetDirection()).reshape(3, 3)
    order = _nearest_axes(axes)
    axes = axes[:, order] * np.sign(np.diag(axes[:, order]))
    return axes, np.array(image.GetSpacing())[order]


def _nearest_axes(axes: np.ndarray) -> list[int]:
    """For x, y and z the column that is nearest to it, each column once."""
    orders = itertools.permutations(range(3))
    return list(max(orders, key=lambda order: np.abs(np.diag(axes[:, list(order)])).sum()))


def check_match(middle: Middle, names: str) -> Alignment:
    """Measure what motion is left between the visits inside the brain.

    Args:
      names: of the visits, for a message.

    Raises:
      InputError: so much that the registration has failed.
    """
    brain = array_of(middle.brain) > 0
    first, second = (array_of(image) for image in middle.images)
    alignment = measure_alignment(first, second, brain, np.array(middle.brain.GetSpacing()))
    if not (alignment.correlation >= LEAST_CORRELATION and alignment.displacement_mm <= FAILED_MM):
        raise InputError(
            f"{names}: the visits do not lie on each other after registration: edges inside the "
            f"brain correlate by {alignment.correlation:.2f} and lie "
            f"{alignment.displacement_mm:.1f} mm apart; expected at least {LEAST_CORRELATION} and "
            f"at most {FAILED_MM:g} mm: are both FLAIRs of one patient, with most of the "
            "brain in view?"
        )
    return alignment
