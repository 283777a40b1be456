"""Compare what the DICOM headers of two visits say about the dates and the patient."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path

from msseg_jax.system.errors import InputError

ID = "PatientID"
# The patient's data that are compared. Anonymisation often changes the ID, but not the others.
PERSON = ("PatientBirthDate", "PatientSex")


@dataclass(frozen=True)
class VisitFacts:
    """Facts from the headers of a visit. Whatever is missing or impossible is left out."""

    acquired_on: date | None = None
    acquired_at: time | None = None
    patient: Mapping[str, str] = field(default_factory=dict)  # values of ID and PERSON


NO_FACTS = VisitFacts()


def compare_visits(
    paths: tuple[Path, Path], visits: tuple[VisitFacts, VisitFacts], allow_reversed: bool
) -> list[str]:
    """Return warnings about two visits whose headers contradict each other.

    Args:
      paths: the scans, for messages.
      allow_reversed: accept a first visit that is later than the second, with a warning.

    Raises:
      InputError: The first visit is later than the second.
    """
    return [*_compare_dates(paths, visits, allow_reversed), *_compare_patients(visits)]


def _compare_dates(
    paths: tuple[Path, Path], visits: tuple[VisitFacts, VisitFacts], allow_reversed: bool
) -> list[str]:
    first, second = visits
    if first.acquired_on is None or second.acquired_on is None:
        return []
    if first.acquired_on > second.acquired_on:
        reversed_ = (
            f"the first visit was acquired on {first.acquired_on}, after the second, of "
            f"{second.acquired_on}"
        )
        if not allow_reversed:
            raise InputError(
                f"{paths[0]} and {paths[1]}: {reversed_}; expected the earlier visit first. Swap "
                "-t1 and -t2 (with --dataset, the names time01 and time02). If the dates in the "
                "headers are wrong, add --allow_reversed."
            )
        return [f"The visits are in reverse order: {reversed_}. New lesions may be old ones."]
    if first.acquired_on < second.acquired_on:
        return []
    warning = (
        f"Both visits have the same date, {first.acquired_on}. Check that they are two visits, and "
        "which one is the first."
    )
    if first.acquired_at and second.acquired_at and first.acquired_at > second.acquired_at:
        warning += (
            f" According to the headers, the first is the later one ({first.acquired_at:%H:%M:%S} "
            f"and {second.acquired_at:%H:%M:%S})."
        )
    return [warning]


def _compare_patients(visits: tuple[VisitFacts, VisitFacts]) -> list[str]:
    """Name the fields that differ. Their values stay out, because reports are passed on."""
    first, second = (visit.patient for visit in visits)
    differ = [
        name
        for name in (*PERSON, ID)
        if first.get(name) and second.get(name) and first[name] != second[name]
    ]
    if set(differ) & set(PERSON):
        verb = "differs" if len(differ) == 1 else "differ"
        return [
            f"The DICOM headers contradict each other about the patient: {' and '.join(differ)} "
            f"{verb}. These are probably scans of two persons. Do not use the result before you "
            "have checked this."
        ]
    if differ:
        return [
            f"{ID} differs between the DICOM headers. Check that both scans are of one patient."
        ]
    return []


def describe_dates(first: date | None, second: date | None) -> str | None:
    """Return the dates of two visits and the interval in words; None if no date is known."""
    if first is None and second is None:
        return None
    said = " and ".join("unknown" if day is None else str(day) for day in (first, second))
    if first is None or second is None:
        return said
    days = abs((second - first).days)
    if days == 0:
        return f"{said}, the same day"
    order = ", in reverse order" if first > second else ""
    return f"{said}, {days} day{'' if days == 1 else 's'} apart{order}"
