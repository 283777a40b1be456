"""The record of a prepared pair: its inputs, settings, quality measures and warnings."""

from collections.abc import Sequence
from datetime import date, time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from msseg_jax import __version__
from msseg_jax.configuration.section import Section
from msseg_jax.data.quality import (
    MOST_DISPLACEMENT_MM,
    ONE_PATIENT_CORRELATION,
    one_patient_warning,
)
from msseg_jax.prepare import bias
from msseg_jax.prepare.folder import PICTURE
from msseg_jax.prepare.images import volume_ml
from msseg_jax.prepare.libraries import LIBRARIES
from msseg_jax.prepare.middle import Middle
from msseg_jax.prepare.registration import centre_of, motion_of
from msseg_jax.prepare.request import Request
from msseg_jax.prepare.visit_facts import VisitFacts
from msseg_jax.prepare.visits import Registered, Visit
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.volumes.alignment import Alignment
from msseg_jax.volumes.coverage import empty_warnings

FLAT = 1.001  # a field with a smaller ratio of its extremes corrects nothing
MOST_UNSEEN_SHARE = 0.03  # of the brain outside one visit's field of view; above it, a warning
MOST_COARSER = 1.5  # ratio of the visits' voxel volumes; above it, a warning


class VisitRecord(Section):
    """Record of one scan."""

    path: str
    series: str | None  # description of the DICOM series, None for NIfTI
    acquired_on: date | None  # from the DICOM headers, None if they do not say it
    acquired_at: time | None
    voxels: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    brain_ml: float
    correlation_with_atlas: float | None  # None if the user gave a brain mask
    grey_to_white: float | None  # ratio of the brightness of grey matter to that of white matter


class RegistrationRecord(Section):
    """Record of the registration of the visits."""

    turned_degrees: float
    moved_mm: float
    correlation: float
    gain_by_mirroring: float
    edges_correlation: float
    apart_mm: float  # distance that is left between the visits, mean over the brain


class BrainRecord(Section):
    """Record of the brain in the middle space."""

    source: str
    ml: float
    in_one_visit_only_ml: float


class BiasFieldRecord(Section):
    """Settings of the bias correction, and the size of the bias at each visit."""

    full_width_at_half_maximum: float
    iterations: tuple[int, ...]
    shrink_factor: int
    control_points: int
    largest_over_smallest: tuple[float, ...]


class PairRecord(Section):
    """The content of prepare.json."""

    asked_for: dict[str, Any]  # all inputs and options that the pair depends on
    made_by: dict[str, str]  # versions of this program and its libraries
    time01: VisitRecord
    time02: VisitRecord
    registration: RegistrationRecord
    brain: BrainRecord
    bias_field: BiasFieldRecord
    warnings: tuple[str, ...]
    seconds: dict[str, float]  # duration of each step


def read_record(path: Path) -> PairRecord:
    """Read the record of a prepared pair.

    Raises:
      InputError: The file is damaged, or another version of this program wrote it.
    """
    try:
        return PairRecord.of(read_json(path), "record", complete=True)
    except InputError as error:
        raise InputError(
            f"{path}: is damaged, or was written by another version of this program ({error}). "
            "Choose another folder, or use --overwrite."
        ) from error


def with_facts(
    record: PairRecord, facts: tuple[VisitFacts, VisitFacts], warnings: Sequence[str]
) -> PairRecord:
    """Return a record with the dates of the visits, and with the warnings that it lacks.

    Args:
      warnings: the current warnings of `compare_visits`.
    """
    first, second = (
        about.model_copy(update={"acquired_on": fact.acquired_on, "acquired_at": fact.acquired_at})
        for about, fact in zip((record.time01, record.time02), facts, strict=True)
    )
    more = tuple(warning for warning in warnings if warning not in record.warnings)
    return record.model_copy(
        update={"time01": first, "time02": second, "warnings": (*more, *record.warnings)}
    )


def describe_registration(
    request: Request, registered: Registered, middle: Middle, alignment: Alignment
) -> dict[str, Any]:
    """Return the fields of a record that are known when the visits lie in the middle space.

    The fields of `describe_bias`, `asked_for` and `seconds` are missing.

    Args:
      alignment: how well the visits match in the middle space.
    """
    first, second = registered.visits
    turned_degrees, moved_mm = motion_of(registered.transform, centre_of(first.brain))
    brain_ml = volume_ml(middle.brain)
    warnings = find_warnings(
        registered.visits, middle.unseen_ml, brain_ml, alignment, middle.empty_ml
    )
    return {
        "made_by": {
            "msseg_jax": __version__,
            **{library: version(library) for library in (*LIBRARIES, "numpy")},
        },
        "time01": _about_visit(first),
        "time02": _about_visit(second),
        "registration": RegistrationRecord(
            turned_degrees=_rounded(turned_degrees, 2),
            moved_mm=_rounded(moved_mm, 2),
            correlation=_rounded(registered.correlation, 4),
            gain_by_mirroring=_rounded(registered.mirror_gain, 4),
            edges_correlation=_rounded(alignment.correlation, 4),
            apart_mm=_rounded(alignment.displacement_mm, 2),
        ),
        "brain": BrainRecord(
            source=_source(request),
            ml=_rounded(brain_ml, 1),
            in_one_visit_only_ml=_rounded(middle.unseen_ml, 1),
        ),
        "warnings": tuple(warnings),
    }


def describe_bias(fields: Sequence[float]) -> BiasFieldRecord:
    """Return the record of the bias correction.

    Args:
      fields: the largest over the smallest value of the bias field, for each visit.
    """
    return BiasFieldRecord(
        full_width_at_half_maximum=bias.FWHM,
        iterations=tuple(bias.ITERATIONS),
        shrink_factor=bias.SHRINK,
        control_points=bias.CONTROL_POINTS,
        largest_over_smallest=tuple(_rounded(ratio, 2) for ratio in fields),
    )


def _source(request: Request) -> str:
    if request.brain_mask_command:
        return request.brain_mask_command
    given = [str(path) for path in request.brain_masks if path is not None]
    return " and ".join(given) or "atlas (ICBM 152) and the image's edge"


def find_warnings(
    visits: tuple[Visit, Visit],
    unseen_ml: float,
    brain_ml: float,
    alignment: Alignment,
    empty_ml: tuple[float, float] = (0.0, 0.0),
) -> list[str]:
    """Return warnings about a pair, as sentences.

    Args:
      unseen_ml: volume of brain that only one visit has in its field of view.
      empty_ml: volume of brain where only the first, and only the second visit has no data.
    """
    found = [
        f"{visit.scan.path} does not define the orientation (neither qform nor sform is set). Left "
        "and right are a guess."
        for visit in visits
        if not visit.scan.is_oriented
    ]
    found += [warning for visit in visits for warning in visit.scan.warnings]
    if unseen_ml > MOST_UNSEEN_SHARE * brain_ml:
        found.append(
            f"{unseen_ml:.0f} ml of the brain lie outside one visit's field of view. New lesions "
            "cannot be found there."
        )
    found += empty_warnings(empty_ml)
    if alignment.displacement_mm > MOST_DISPLACEMENT_MM:
        found.append(
            f"The visits are {alignment.displacement_mm:.1f} mm apart inside the brain after "
            f"registration (expected at most {MOST_DISPLACEMENT_MM:g} mm). Look at {PICTURE}."
        )
    if alignment.correlation < ONE_PATIENT_CORRELATION:
        found.append(one_patient_warning(alignment.correlation))
    voxels = [np.prod(visit.scan.image.GetSpacing()) for visit in visits]
    if max(voxels) > MOST_COARSER * min(voxels):
        found.append(
            f"The visits differ in resolution: voxels of {voxels[0]:.1f} and {voxels[1]:.1f} mm3. "
            "Small lesions may be visible only in the finer one."
        )
    return found


def flat_warnings(fields: Sequence[float]) -> list[str]:
    """Return a warning for each visit in which the bias correction changed nothing.

    Args:
      fields: the largest over the smallest value of the bias field, for each visit.
    """
    return [
        f"The bias field of the {visit} visit is flat ({ratio:.4f}). The correction found nothing "
        "to correct, which even a corrected scan does not explain. Compare the visits closely."
        for visit, ratio in zip(("first", "second"), fields, strict=True)
        if ratio < FLAT
    ]


def _about_visit(visit: Visit) -> VisitRecord:
    image, atlas, grey = visit.scan.image, visit.atlas_correlation, visit.grey_to_white
    x, y, z = image.GetSize()
    spacing_mm = [_rounded(mm, 4) for mm in image.GetSpacing()]
    return VisitRecord(
        path=str(visit.scan.path),
        series=visit.scan.series,
        acquired_on=visit.scan.facts.acquired_on,
        acquired_at=visit.scan.facts.acquired_at,
        voxels=(x, y, z),
        spacing_mm=(spacing_mm[0], spacing_mm[1], spacing_mm[2]),
        brain_ml=_rounded(volume_ml(visit.brain), 1),
        correlation_with_atlas=None if atlas is None else _rounded(atlas, 4),
        grey_to_white=None if grey is None else _rounded(grey, 3),
    )


def _rounded(value: float, digits: int) -> float:
    return round(float(value), digits)
