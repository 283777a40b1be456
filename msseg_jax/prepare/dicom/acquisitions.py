"""Choose between several stacks of slices that a scanner has put into one series.

Two acquisitions, echoes or repetitions can have one series UID. Their slices then lie at the same
positions, and a field of the header tells them apart. Stacks whose slices alternate (a scan in
several "concatenations") are one volume, and stay together.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, combinations

from msseg_jax.prepare.dicom.header import STACK_FIELDS, DicomSlice
from msseg_jax.prepare.dicom.stack import LEAST_SLICES, check_stack, has_repeats
from msseg_jax.system.errors import InputError


@dataclass(frozen=True)
class SliceStack:
    """One of several stacks of a series."""

    place: int  # in the list of all stacks of the series, from 1
    values: tuple[str, ...]  # of the fields that differ
    label: str  # the fields and their values in words
    slices: list[DicomSlice]

    def __str__(self) -> str:
        return f"#{self.place}: {self.label}, {len(self.slices)} files"


def choose_acquisition(
    name: str, slices: list[DicomSlice], pick: str | None, for_both: bool = False
) -> tuple[list[DicomSlice], str]:
    """Return the slices of one stack in order, and words that describe the choice, or ''.

    Args:
      name: the series, for messages.
      pick: value of the field that differs, place in the list such as '#2', or a part of the
        description. Without it, there must be only one stack.
      for_both: `pick` is for both visits, so it is ignored if this one has only one stack.

    Raises:
      InputError: There are several stacks, and `pick` does not choose one of them, or the slices
        do not form a regular stack.
    """
    found = _split(name, slices)
    if len(found) == 1 and (pick is None or for_both):
        return check_stack(name, slices), ""
    listed = "\n".join(f"  {one}" for one in found)
    if pick is None:
        raise InputError(
            f"{name}: contains {len(found)} stacks of slices; expected one. Choose one with "
            f"--acquisition={found[0].values[0] if len(found[0].values) == 1 else '#1'}, "
            f"for example:\n{listed}"
        )
    meant = [one for one in found if one.values == (pick,)]
    meant = meant or [one for one in found if pick == f"#{one.place}"]
    meant = meant or [one for one in found if pick and pick.lower() in one.label.lower()]
    if len(meant) != 1:
        raise InputError(
            f"{name}: --acquisition={pick} matches {len(meant)} of its stacks; expected the value "
            "or a part of the description of exactly one, or its place in this list, such as #1. "
            f"If the visits need different ones, give the flag twice:\n{listed}"
        )
    chosen = meant[0]
    if len(found) == 1:
        return check_stack(name, slices), ""
    return check_stack(f"{name}, {chosen.label}", chosen.slices), chosen.label


def _split(name: str, slices: list[DicomSlice]) -> list[SliceStack]:
    """Return the stacks of a series; only one if no field tells several stacks apart."""
    if _is_stack(slices):
        return [_the_only(slices)]
    # One field is enough for most series. Two are needed for echoes of several repetitions.
    for fields in chain(combinations(STACK_FIELDS, 1), combinations(STACK_FIELDS, 2)):
        groups: dict[tuple[str, ...], list[DicomSlice]] = defaultdict(list)
        for slice_ in slices:
            groups[tuple(slice_.labels.stack[field] for field in fields)].append(slice_)
        if _are_stacks(list(groups.values()), has_repeats(slices)):
            ordered = sorted(groups.items(), key=lambda item: [_sort_key(v) for v in item[0]])
            return [
                SliceStack(place, values, _label(fields, values), group)
                for place, (values, group) in enumerate(ordered, start=1)
            ]
    return [_the_only(slices)]


def _are_stacks(groups: list[list[DicomSlice]], repeated: bool) -> bool:
    """Check if groups of slices are several stacks.

    Args:
      repeated: whether slices of different groups lie at the same positions. If so, each group may
        lack slices. If not, incomplete groups could be parts of one stack that lacks slices.
    """
    large = [group for group in groups if len(group) >= LEAST_SLICES]
    if len(large) < 2:
        return False
    if repeated:
        return not any(has_repeats(group) for group in groups)
    return all(_is_stack(group) for group in groups)


def _is_stack(slices: list[DicomSlice]) -> bool:
    try:
        check_stack("", slices)
    except InputError:
        return False
    return True


def _the_only(slices: list[DicomSlice]) -> SliceStack:
    number = slices[0].labels.stack["AcquisitionNumber"]
    return SliceStack(1, (number,), _label(("AcquisitionNumber",), (number,)), slices)


def _label(fields: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ", ".join(
        f"{STACK_FIELDS[field]} {value}" if value else f"no {STACK_FIELDS[field]}"
        for field, value in zip(fields, values, strict=True)
    )


def _sort_key(value: str) -> tuple[bool, float, str]:
    """Sort numbers by value, before all other texts."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value
