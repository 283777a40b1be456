"""What is to be prepared, as flags and folders say it. Imports none of the optional libraries."""

import argparse
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.nifti import SUFFIXES

LIBRARIES = ("SimpleITK", "nilearn")
VISITS = ("time01", "time02")
PREFIXES = ("", "flair_")  # of a visit's name in a folder of scans


class RequestError(InputError):
    """Something that cannot be prepared as it was asked for."""


@dataclass(frozen=True)
class Request:
    """One pair, and how to prepare it."""

    time01: Path  # a NIfTI file, or a folder of DICOM files
    time02: Path
    series: tuple[str | None, str | None] = (None, None)  # of DICOM folders with several
    brain_masks: tuple[Path | None, Path | None] = (None, None)
    brain_mask_command: str | None = None


def check_libraries() -> None:
    """Raises RequestError where what `requirements-prepare.txt` lists is not installed."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"preparing scans needs {' and '.join(missing)}, not installed here: "
            "pip install -r requirements-prepare.txt"
        )


def request_of(flags: argparse.Namespace, time01: Path, time02: Path) -> Request:
    """The request for one pair, with what the flags say about how."""
    series = flags.series or [None]
    return Request(
        time01, time02, (series[0], series[-1]), (flags.brain_mask01, flags.brain_mask02),
        flags.brain_mask_command,
    )  # fmt: skip


def find_scans(root: Path) -> dict[str, tuple[Path, Path]]:
    """Both scans of each patient of a folder, by the patient's name.

    Raises:
      RequestError: no such folder, no patients, or a patient without two scans; every problem in
        one message.
    """
    if not root.is_dir():
        raise RequestError(
            f"{root}: no such folder; wanted one with a folder per patient (--dataset)"
        )
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise RequestError(f"{root}: no patient folder in it; wanted <patient>/time01.nii.gz ...")
    problems, scans = [], {}
    for folder in folders:
        found = [_scans_of(folder, visit) for visit in VISITS]
        for visit, paths in zip(VISITS, found, strict=True):
            if len(paths) != 1:
                problems.append(_what_is_there(folder, visit, paths))
        scans[folder.name] = tuple(paths[0] for paths in found if paths)
    if problems:
        raise RequestError("\n".join(problems))
    return scans


def _scans_of(folder: Path, visit: str) -> list[Path]:
    starts = tuple(prefix + visit for prefix in PREFIXES)
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().startswith(starts) and (path.is_dir() or path.name.endswith(SUFFIXES))
    ]


def _what_is_there(folder: Path, visit: str, paths: list[Path]) -> str:
    """In place of one scan of a visit, in words."""
    starts = f"{visit} or flair_{visit}"
    if paths:
        names = ", ".join(path.name for path in paths)
        found = f"{len(paths)} entries whose names begin with {starts}, {names}; wanted one"
    else:
        names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        found = f"no NIfTI file or DICOM folder whose name begins with {starts}; there is: {names}"
    return f"{folder}: {found}"
