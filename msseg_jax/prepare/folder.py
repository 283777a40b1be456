"""Describe the folder of a prepared pair, and check that it may be written.

FOLDER/flair_time01_on_middle_space.nii.gz   first visit, bias-corrected
       flair_time02_on_middle_space.nii.gz   second visit, bias-corrected
       brain_mask.nii.gz                     union of both visits' masks, where both have data
       no_data.nii.gz                        where only the first (1) or second visit (2) has no
                                             data inside the brain; only if there is such a part
       transforms/middle_to_time01.txt       ITK transforms; the first two map points of the middle
                  middle_to_time02.txt       space to points of a scan, in the direction that
                  time01_to_time02.txt       sitk.Resample(scan, middle, transform) expects
                  middle_to_atlas.txt        to points of the atlas (MNI space at 0.9 of its size);
                                             only if the atlas found the brain
       prepare.json                          record: inputs, settings and quality measures
       prepare.png                           picture for visual control
"""

from pathlib import Path
from typing import Any

from msseg_jax.prepare.request import Request
from msseg_jax.prepare.scan import Scan
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import BRAIN_MASK, NO_DATA, TIME01, TIME02

RECORD = "prepare.json"
PICTURE = "prepare.png"
TRANSFORMS = "transforms"
TO_ATLAS = "middle_to_atlas.txt"  # in the folder of the transforms
FILES = {TIME01, TIME02, BRAIN_MASK, NO_DATA, TRANSFORMS, RECORD, PICTURE}
FORMAT = 5  # version of the record; increase it when the same input would give another output


def what_was_asked_for(request: Request, scans: tuple[Scan, Scan]) -> dict[str, Any]:
    """Return everything that the output depends on, in the types that JSON returns."""
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
        raise InputError(
            f"{path}: cannot be read ({error}); expected the file of a brain mask. Check the path "
            "and the permissions."
        ) from error
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def check_place(folder: Path, is_made: bool, overwrite: bool) -> None:
    """Raise InputError if files that this program did not write would be lost.

    Args:
      is_made: whether the folder holds the record of a prepared pair.
      overwrite: whether an existing pair is going to be replaced.
    """
    if not is_made and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: already exists, and was not made by this program (it has no {RECORD}); "
            "expected a new or an empty folder. Choose another name."
        )
    if is_made and overwrite:
        others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
        if others:
            raise InputError(
                f"{folder}: also holds {', '.join(others)}. These were not made by this program, "
                "and --overwrite would delete them. Move them to another folder first."
            )
