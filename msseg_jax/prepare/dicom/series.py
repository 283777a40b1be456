"""List the series in a folder of DICOM files, and choose one."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from msseg_jax.prepare.dicom.header import DicomSlice, SliceLabels, read_slice
from msseg_jax.prepare.dicom.stack import LEAST_SLICES, MOST_LISTED
from msseg_jax.prepare.dicom.values import DamagedSliceError
from msseg_jax.system.errors import InputError


@dataclass(frozen=True)
class Series:
    """The files of one series."""

    labels: SliceLabels  # of the first file
    place: int  # in the list of all series of the folder, from 1
    slices: list[DicomSlice]

    @property
    def frames(self) -> int:
        """The number of frames in all files."""
        return sum(slice_.frames for slice_ in self.slices)

    def __str__(self) -> str:
        name = f"series {self.labels.number}" if self.labels.number else "series without a number"
        frames = f" of {self.frames} frames" if self.frames != len(self.slices) else ""
        return (
            f"{name}: {self.labels.description or 'no description'!r}, "
            f"{self.labels.modality or 'no modality'}, {len(self.slices)} files{frames}, "
            + (f"UID {self.labels.uid}" if self.labels.uid else "no UID")
        )

    @property
    def in_list(self) -> str:
        """A line for a list of series; it says how to choose a series without a number."""
        hint = "" if self.labels.number else f" (choose it with --series=#{self.place})"
        return f"  {self}{hint}"


def list_series(folder: Path, pick: str | None = None) -> list[Series]:
    """List the series in a folder and its subfolders, sorted by number.

    Files that are not DICOM images are skipped.

    Args:
      pick: which series is going to be chosen; see `choose_series`. Damaged files of others are
        then skipped, too.

    Raises:
      InputError: There is no series, or a file is an MR image that cannot be read.
    """
    found: dict[str, list[DicomSlice]] = defaultdict(list)
    damaged: dict[Path, DamagedSliceError] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            slice_ = read_slice(path)
        except DamagedSliceError as error:
            damaged[path.relative_to(folder)] = error
            continue
        if slice_ is not None:
            found[slice_.labels.uid].append(slice_)
    ordered = sorted(found.values(), key=lambda slices: _order(slices[0].labels))
    series = [
        Series(slices[0].labels, place, slices) for place, slices in enumerate(ordered, start=1)
    ]
    _check_damaged(folder, damaged, [] if pick is None else _meant_by(pick, series))
    if not series:
        raise InputError(
            f"{folder}: contains no DICOM image; expected the files of a FLAIR series. Instead of "
            "a folder, you can give a NIfTI file."
        )
    return series


def _check_damaged(
    folder: Path, damaged: dict[Path, DamagedSliceError], meant: list[Series]
) -> None:
    """Raise InputError if files are damaged, unless they belong to other series than the chosen."""
    if len(meant) == 1:
        uids = ("", meant[0].labels.uid)  # if it is unknown, it may be that of the chosen series
        damaged = {path: error for path, error in damaged.items() if error.uid in uids}
    if not damaged:
        return
    names = [str(path) for path in damaged]
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    raise InputError(
        f"{folder}: these MR images are cut off or damaged: {', '.join(names[:MOST_LISTED])}"
        f"{more}; expected complete files. In {names[0]}, {next(iter(damaged.values()))}. Copy the "
        "files again. If they belong to another series, choose yours with --series, or move them "
        "elsewhere."
    )


def _order(labels: SliceLabels) -> tuple[bool, int, str]:
    return not labels.number, int(labels.number or 0), labels.uid


def choose_series(
    folder: Path, found: list[Series], pick: str | None, for_both: bool = False
) -> Series:
    """Return the series that `pick` names. Without `pick`, return the only one.

    Args:
      pick: number, UID, place in the list such as '#2', or a part of the description.
      for_both: `pick` is for both visits. A place is then ignored if this visit has only one series
        with enough slices, and no such place. A number or a description is not: it may tell that
        this is the wrong scan.

    Raises:
      InputError: Several series match, or none. The message lists all series.
    """
    listed = "\n".join(series.in_list for series in found)
    stacks = [series for series in found if series.frames >= LEAST_SLICES]
    if pick is not None:
        meant = _meant_by(pick, found)
        if not meant and for_both and pick.startswith("#") and len(stacks) == 1:
            return stacks[0]
        if len(meant) != 1:
            raise InputError(
                f"{folder}: --series={pick} matches {len(meant)} of the series; expected the "
                "number, the UID or a part of the description of exactly one, or its place in "
                "this list, such as #1. If the visits need different ones, give the flag twice:\n"
                f"{listed}"
            )
        return meant[0]
    if len(stacks) == 1:
        return stacks[0]
    if not stacks and len(found) == 1:
        return found[0]  # too few slices; `check_stack` raises an error with more details
    raise InputError(
        f"{folder}: contains {len(found)} series; expected one. Choose one with --series=NUMBER "
        "(or its UID, or a part of its description), or give a folder with only the FLAIR:\n"
        f"{listed}"
    )


def _meant_by(pick: str, found: list[Series]) -> list[Series]:
    """Return the series that a choice of the user names."""
    meant = [s for s in found if pick and pick in (s.labels.uid, s.labels.number)]
    meant = meant or [s for s in found if pick == f"#{s.place}"]
    return meant or [s for s in found if pick.lower() in s.labels.description.lower()]
