"""The folder of a prepared pair: what lies in it, and whether it may be made.

FOLDER/flair_time01_on_middle_space.nii.gz   first visit, bias-corrected
       flair_time02_on_middle_space.nii.gz   second visit
       brain_mask.nii.gz                     the union of both visits', where both have data
       transforms/middle_to_time01.txt       ITK; from points of the middle space to the scan's, as
                  middle_to_time02.txt       sitk.Resample(scan, middle, transform) takes them
                  time01_to_time02.txt
       prepare.json                          what was done with what, and how well it went
       prepare.png                           to look at
"""

from pathlib import Path
from typing import Any

from msseg_jax.prepare.request import Request
from msseg_jax.prepare.scan import Scan
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02

RECORD = "prepare.json"
PICTURE = "prepare.png"
TRANSFORMS = "transforms"
FILES = {TIME01, TIME02, BRAIN_MASK, TRANSFORMS, RECORD, PICTURE}
FORMAT = 2  # of the record; raise it when the same input would give another output


def what_was_asked_for(request: Request, scans: tuple[Scan, Scan]) -> dict[str, Any]:
    """Return everything that the output depends on, as JSON gives it back."""
    return {
        "format": FORMAT,
        "scans": [
            {
                "voxels_sha256": scan.digest,
                "grid": repr((scan.image.GetOrigin(), scan.image.GetSpacing(),
                              scan.image.GetDirection())),
            }
            for scan in scans
        ],
        "brain_masks": [path and _file_state(path) for path in request.brain_masks],
        "brain_mask_command": request.brain_mask_command,
    }  # fmt: skip


def _file_state(path: Path) -> list[str | int]:
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a brain mask") from error
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def check_place(folder: Path, is_made: bool, overwrite: bool) -> None:
    """Raise InputError if files in the folder, not made by this program, would be lost.

    Args:
      is_made: whether the folder holds the record of a prepared pair.
    """
    if not is_made and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: is there, and was not made by this program (no {RECORD}); expected a name "
            "that is free: choose another"
        )
    if is_made and overwrite:
        others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
        if others:
            raise InputError(
                f"{folder}: also holds {', '.join(others)}, not made by this program, which "
                "--overwrite would delete; expected them elsewhere: move them away first"
            )
