"""Requests: which two scans to prepare, and how. Imports none of the optional libraries."""

from dataclasses import dataclass
from pathlib import Path

from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_folder, has_suffix
from msseg_jax.volumes.layout import patient_folders, unreadable
from msseg_jax.volumes.names import READABLE

VISITS = ("time01", "time02")
SCANS = "a folder with one folder per patient, each with the scans time01 and time02"
PREFIXES = ("", "flair_")  # allowed before the name of a visit in a patient's folder


@dataclass(frozen=True)
class Choice:
    """Which images of a DICOM folder to read, if there are several."""

    series: str | None = None  # number, UID, part of the description, or place such as '#2'
    acquisition: str | None = None  # the stack of slices, if the series holds several
    # Whether the choice is that of both visits. One of them may then have nothing to choose.
    series_for_both: bool = False
    acquisition_for_both: bool = False


THE_ONLY = Choice()  # there must be only one series with one stack


@dataclass(frozen=True)
class Request:
    """One pair of scans, and the options for its preparation."""

    time01: Path  # a NIfTI file, or a folder of DICOM files
    time02: Path
    series: tuple[str | None, str | None] = (None, None)  # for DICOM folders with several series
    brain_masks: tuple[Path | None, Path | None] = (None, None)
    brain_mask_command: str | None = None
    acquisitions: tuple[str | None, str | None] = (None, None)  # for series with several stacks
    allow_reversed: bool = False  # accept a first visit that is later than the second

    def choice(self, visit: int) -> Choice:
        """Return which images of a visit (0 or 1) to read."""
        return Choice(
            self.series[visit], self.acquisitions[visit],
            len(set(self.series)) == 1, len(set(self.acquisitions)) == 1,
        )  # fmt: skip


def find_scans(
    root: Path, flag: str = "root"
) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Find both scans of each patient in a folder.

    Args:
      flag: the flag that gives `root`, for messages.

    Returns:
      {patient: both scans}, and {patient: what is wrong} for folders that do not hold exactly two
      scans.

    Raises:
      InputError: The folder does not exist, or contains no patient with two scans. The message
        lists all problems.
    """
    check_folder(flag, root, SCANS)
    folders, problems = patient_folders(root)
    if not folders and not problems:
        raise InputError(
            f"{root}: contains no patient folder; expected, for example, <patient>/time01.nii.gz "
            "and <patient>/time02.nii.gz."
        )
    scans = {}
    for folder in folders:
        try:
            found = {visit: _scans_of(folder, visit) for visit in VISITS}
            wrong = [
                _describe_problem(folder, visit, paths)
                for visit, paths in found.items()
                if len(paths) != 1
            ]
        except OSError as error:
            wrong = [unreadable(folder, error)]
        if wrong:
            problems[folder.name] = "\n".join(wrong)
        else:
            first, second = (found[visit][0] for visit in VISITS)
            scans[folder.name] = (first, second)
    if not scans:
        raise InputError("\n".join(problems.values()))
    return scans, problems


def _scans_of(folder: Path, visit: str) -> list[Path]:
    starts = tuple(prefix + visit for prefix in PREFIXES)
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().startswith(starts) and (path.is_dir() or has_suffix(path, READABLE))
    ]


def _describe_problem(folder: Path, visit: str, paths: list[Path]) -> str:
    """Describe what the folder contains instead of exactly one scan of a visit."""
    starts = f"{visit} or flair_{visit}"
    if paths:
        names = ", ".join(path.name for path in paths)
        found = f"{len(paths)} names begin with {starts} ({names}); expected exactly one"
    else:
        names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        found = (
            f"expected a NIfTI file or DICOM folder with a name that begins with {starts}. "
            f"The folder contains: {names}"
        )
    return f"{folder}: {found}"
