"""What is to be prepared: two scans, and how. It imports none of the optional libraries."""

from dataclasses import dataclass
from pathlib import Path

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.nifti import SUFFIXES

VISITS = ("time01", "time02")
PREFIXES = ("", "flair_")  # of a visit's name in a folder of scans


@dataclass(frozen=True)
class Request:
    """One pair, and how to prepare it."""

    time01: Path  # a NIfTI file, or a folder of DICOM files
    time02: Path
    series: tuple[str | None, str | None] = (None, None)  # of DICOM folders with several
    brain_masks: tuple[Path | None, Path | None] = (None, None)
    brain_mask_command: str | None = None


def find_scans(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return both scans of each patient of a folder, by the patient's name.

    Raises:
      InputError: no such folder, no patients, or a patient without two scans; every problem in
        one message.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; expected one with a folder per patient (--dataset)"
        )
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{root}: no patient folder in it; expected <patient>/time01.nii.gz ...")
    problems: list[str] = []
    scans = {}
    for folder in folders:
        first, second = (_scans_of(folder, visit) for visit in VISITS)
        if len(first) == len(second) == 1:
            scans[folder.name] = (first[0], second[0])
        problems += [
            _what_is_there(folder, visit, paths)
            for visit, paths in zip(VISITS, (first, second), strict=True)
            if len(paths) != 1
        ]
    if problems:
        raise InputError("\n".join(problems))
    return scans


def _scans_of(folder: Path, visit: str) -> list[Path]:
    starts = tuple(prefix + visit for prefix in PREFIXES)
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().startswith(starts) and (path.is_dir() or path.name.endswith(SUFFIXES))
    ]


def _what_is_there(folder: Path, visit: str, paths: list[Path]) -> str:
    """Return what is there instead of one scan of a visit, in words."""
    starts = f"{visit} or flair_{visit}"
    if paths:
        names = ", ".join(path.name for path in paths)
        found = f"{len(paths)} entries whose names begin with {starts}, {names}; expected one"
    else:
        names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        found = f"no NIfTI file or DICOM folder whose name begins with {starts}; there is: {names}"
    return f"{folder}: {found}"
