"""Read the volumes of one patient and check that they agree."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.coverage import (
    LEAST_BOTH,
    constant_parts,
    empty_parts,
    is_padding,
    with_borders_filled,
)
from msseg_jax.volumes.extent import extent_problem
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.layout import Patient, logger
from msseg_jax.volumes.lesions import voxel_mm3
from msseg_jax.volumes.mask_fit import heed_misfit, measure_mask_fit
from msseg_jax.volumes.masks import brain_mask_problem, is_inside, mask_problem
from msseg_jax.volumes.nifti import read_checked, read_volume
from msseg_jax.volumes.right_angles import right_angle_problem
from msseg_jax.volumes.volume import Volume

MOST_EMPTY_SHARE = 0.9  # of the brain, without data in one visit, or in one or the other
MOST_BRAIN_ML = 3000.0  # brains have up to 2000 ml; whole heads have more than this
CODES = (1, 2)  # in `Pair.no_data`, of the first and the second visit
MAX_BRAIN_SHARE = 0.9  # of a volume; if the "brain" is larger, the image was never masked


@dataclass(frozen=True)
class Pair:
    """The checked volumes of one patient, all on one grid."""

    time01: Volume
    time02: Volume
    brain: np.ndarray  # (D, H, W) bool, without the parts where one visit has no data
    targets: np.ndarray  # (T, D, H, W) uint8, 0 or 1; 0 outside the brain
    known: np.ndarray  # (T,) bool; a target that is not known is 0 everywhere
    empty_ml: tuple[float, float] = (0.0, 0.0)  # brain where only this visit has no data
    # (D, H, W) uint8: 1 where only the first visit has no data, 2 where only the second; or None
    no_data: np.ndarray | None = None
    warnings: tuple[str, ...] = ()  # about the brain mask

    @property
    def whole_brain(self) -> np.ndarray:
        """(D, H, W) bool, the brain with the parts where only one visit has data."""
        return self.brain if self.no_data is None else self.brain | (self.no_data > 0)

    @property
    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """The voxels of both visits, with borders of missing parts filled, for interpolation."""
        if self.no_data is None:
            return self.time01.array, self.time02.array
        first, second = (
            with_borders_filled(visit.array, self.no_data == code, self.brain)
            for visit, code in zip((self.time01, self.time02), CODES, strict=True)
        )
        return first, second


def read_pair(patient: Patient, read: Callable[[Path], Volume] = read_volume) -> Pair:
    """Read all volumes of a patient, check each of them, and check that they agree.

    Args:
      read: returns the volume of a path. It may take volumes from memory.

    Raises:
      InputError: a check failed. The message lists every problem of this patient, one per line.
    """
    problems: list[str] = []
    time01 = read_checked(patient.time01, None, problems, read)
    time02 = read_checked(patient.time02, None, problems, read)
    if time01 and time02 and (difference := grid_difference(time01, time02)):
        problems.append(
            f"{difference} Or start from the scans: `msseg predict --prepare` and `msseg prepare` "
            "bring them onto one grid."
        )
    for visit in filter(None, (time01, time02)):
        problems += filter(None, (extent_problem(visit), right_angle_problem(visit)))
        if np.ptp(visit.array) == 0:
            problems.append(
                f"{visit.path}: every voxel is {visit.array.flat[0]:g}. Expected a FLAIR image. "
                "Export it again."
            )
    if time01 and time02 and np.array_equal(time01.array, time02.array):
        problems.append(
            f"{patient.time01} and {patient.time02} contain the same voxels: the same scan was "
            "given twice. Expected the scans of two visits. Check both paths."
        )
    mask = None
    if patient.brain_mask:
        mask = read_checked(patient.brain_mask, time01, problems, read)
    if mask and (problem := brain_mask_problem(mask, (time01, time02))):
        problems.append(problem)
    left_out = None
    if patient.no_data:
        left_out = read_checked(patient.no_data, time01, problems, read)
    if left_out and not np.isin(np.rint(left_out.array), (0, *CODES)).all():
        problems.append(
            f"{left_out.path}: has other values than 0, 1 and 2. Expected the file that `msseg "
            "prepare` wrote. Prepare the scans again, or delete the file."
        )
    targets = {
        path: _read_target(path, time01, problems)
        for path in patient.targets
        if path not in patient.unknown
    }
    if problems:
        raise InputError("\n".join(problems))
    assert time01 is not None  # if it were None, a problem would have been raised above
    assert time02 is not None

    whole = _brain(patient, time01, time02, mask)
    warnings: tuple[str, ...] = ()
    if mask is not None:
        fits = {
            visit.path: measure_mask_fit(visit.array, whole, visit.affine)
            for visit in (time01, time02)
        }
        warnings = heed_misfit(mask.path, fits)
    no_data, at_none = _no_data(whole, time01, time02)
    brain = whole & (no_data == 0) & ~at_none
    volume_mm3 = voxel_mm3(time01.spacing_mm)
    if at_none.any():
        warnings += (
            f"{at_none.sum() * volume_mm3 / 1000:.0f} ml of the brain have no data in either visit "
            "(zeros or padding). They are left out. Check the brain mask.",
        )
    if left_out is not None:  # the preparation has left these parts out of the mask
        no_data = np.where(whole, no_data, np.rint(left_out.array).astype(np.uint8))
    counts = [int((no_data == code).sum()) for code in CODES]
    first_ml, second_ml = (count * volume_mm3 / 1000 for count in counts)
    maps = []
    for path in patient.targets:
        if path in patient.unknown:
            maps.append(np.zeros(brain.shape, np.uint8))
            continue
        target = targets[path]
        assert target is not None  # as above
        outside = int(target[~brain].sum())
        if outside:
            logger.warning(
                "%s: %d voxels outside the brain have the value 1. They are set to 0.",
                path,
                outside,
            )
            target *= brain
        maps.append(target)
    stacked = np.stack(maps) if maps else np.zeros((0, *brain.shape), dtype=np.uint8)
    known = np.array([path not in patient.unknown for path in patient.targets], bool)
    return Pair(
        time01, time02, brain, stacked, known, (first_ml, second_ml),
        no_data if any(counts) else None, warnings,
    )  # fmt: skip


def _no_data(brain: np.ndarray, time01: Volume, time02: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of the brain where one visit has no data, and where none has any.

    Returns:
      (D, H, W) uint8, as in `Pair.no_data`; and (D, H, W) bool. Both visits may lack fluid, so what
      none has is left empty if it is small.

    Raises:
      InputError: most of the brain has no data.
    """
    volume_mm3 = voxel_mm3(time01.spacing_mm)
    # Preparation and masking leave 0, and padding is negative.
    empty = [
        (visit.array == 0) | (visit.array == min(visit.array.min(), 0))
        for visit in (time01, time02)
    ]
    arrays = time01.array, time02.array
    parts = [
        empty_parts(empty[one], empty[1 - one], arrays[1 - one], brain, volume_mm3)
        for one in (0, 1)
    ]
    for part, array in zip(parts, arrays, strict=True):
        part |= is_padding(array, brain)
    for one in (0, 1):
        if not parts[one].any():
            parts[one] = constant_parts(arrays[one], arrays[1 - one], brain, volume_mm3)
    for visit, part in zip((time01, time02), parts, strict=True):
        if part.sum() > MOST_EMPTY_SHARE * brain.sum():
            raise InputError(
                f"{visit.path}: has no data in most of the brain, only zeros or padding. Expected "
                "a FLAIR image. Check the file and the brain mask."
            )
    at_none = brain & (empty[0] | parts[0]) & (empty[1] | parts[1])
    if at_none.sum() < LEAST_BOTH * brain.sum():
        at_none &= parts[0] | parts[1]  # only padding
    share = float((brain & ~(parts[0] | parts[1] | at_none)).sum() / brain.sum())
    if share < 1 - MOST_EMPTY_SHARE:
        raise InputError(
            f"{time01.path} and {time02.path}: both have data in only {100 * share:.1f} % of the "
            f"brain. Expected at least {100 * (1 - MOST_EMPTY_SHARE):.0f} %, so that there is "
            "something to compare. Check both files and the brain mask."
        )
    codes = CODES[0] * (parts[0] & ~at_none) + CODES[1] * (parts[1] & ~at_none)
    return codes.astype(np.uint8), at_none


def _read_target(path: Path, like: Volume | None, problems: list[str]) -> np.ndarray | None:
    """Read a reference map as (D, H, W) uint8, 0 or 1. Add what is wrong to `problems`."""
    target = read_checked(path, like, problems)
    if target is None:
        return None
    if problem := mask_problem(path, target.array):
        problems.append(problem)
    return is_inside(target.array).astype(np.uint8)


def _brain(patient: Patient, time01: Volume, time02: Volume, mask: Volume | None) -> np.ndarray:
    """Return the brain's voxels, (D, H, W) bool: from the mask, or else from the visits."""
    if mask is not None:
        source = str(mask.path)
        brain = is_inside(mask.array)
        advice = "Give a mask of the brain, 1 inside and 0 outside."
    else:
        source = f"{time01.path} and {time02.path} (no brain mask)"
        brain = (time01.array != 0) | (time02.array != 0)
        advice = "Mask the images, or give a brain mask (hd-bet, mri_synthstrip and bet make one)."
        logger.warning(
            "%s: no brain mask, so all voxels that are non-zero in either visit count as brain",
            patient.name,
        )
    share = brain.mean()
    if not 0 < share <= MAX_BRAIN_SHARE:
        extent = "empty" if share == 0 else f"{100 * share:.1f} % of the volume"
        raise InputError(
            f"{source}: the brain would be {extent}. Expected more than 0 % and at most "
            f"{100 * MAX_BRAIN_SHARE:.0f} % of the volume. {advice}"
        )
    brain_ml = brain.sum() * voxel_mm3(time01.spacing_mm) / 1000
    if brain_ml > MOST_BRAIN_ML:
        raise InputError(
            f"{source}: the brain would have {brain_ml:.0f} ml, as much as a whole head. Expected "
            f"at most {MOST_BRAIN_ML:.0f} ml. {advice}"
        )
    return brain
