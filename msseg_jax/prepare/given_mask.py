"""Brain masks that somebody else made: a file of the user's, or what a program of the user's says.

Programs differ in what they call their mask. Given `{output}` = mask.nii.gz, mri_synthstrip writes
just that; bet and the first hd-bet write mask_mask.nii.gz beside the stripped image, the second
hd-bet mask_bet.nii.gz. Where there is a stripped image alone, what is not 0 in it is the brain.
"""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.images import image_of
from msseg_jax.prepare.registration import on_grid
from msseg_jax.prepare.scan import Scan
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.masks import brain_mask_problem
from msseg_jax.volumes.nifti import check_finite, read_volume

PLACEHOLDERS = ("{input}", "{output}")
OUTPUT = "mask.nii.gz"
WRITTEN = ("mask_mask.nii.gz", "mask_bet.nii.gz", OUTPUT)  # the first that is there is the mask
LEAST_INSIDE = 0.9  # of the mask, in the scan's field of view
LINES_SHOWN = 5  # of what a program that failed has said


def read_mask(path: Path, scan: Scan) -> sitk.Image:
    """A mask file on the grid of its visit: uint8.

    Its own grid may be another, as where DICOM was converted: what counts is where it lies.

    Raises:
      InputError: it cannot be read, is no mask, or lies elsewhere.
    """
    volume = read_volume(path)
    check_finite(volume)
    if problem := brain_mask_problem(volume):
        raise InputError(problem)
    return _on_grid_of(scan, str(path), (volume.array != 0), volume.affine)


def check_command(command: str) -> list[str]:
    """The words of a command line with placeholders. Raises InputError without them."""
    try:
        words = shlex.split(command, posix=os.name != "nt")  # keeps the backslashes of Windows
    except ValueError as error:
        raise InputError(f"--brain_mask_command={command}: {error}") from error
    missing = [p for p in PLACEHOLDERS if not any(p in word for word in words)]
    if missing:
        raise InputError(
            f"--brain_mask_command={command}: {' and '.join(missing)} not in it; expected the "
            'command with both, such as "mri_synthstrip -i {input} -m {output}"'
        )
    return words


def run_command(words: list[str], scan: Scan) -> sitk.Image:
    """The mask that a program makes of a visit, on that visit's grid: uint8.

    The program is started as it is, without a shell, from where the user is; it works on a copy of
    the scan, in a folder made for it.

    Args:
      words: of `check_command`.

    Raises:
      InputError: it cannot be started, fails, or writes no mask.
    """
    with tempfile.TemporaryDirectory(prefix="msseg_jax-") as name:
        folder = Path(name)
        places = {"{input}": str(folder / "flair.nii.gz"), "{output}": str(folder / OUTPUT)}
        sitk.WriteImage(scan.image, places["{input}"])
        filled = [_fill(word, places) for word in words]
        said = f"--brain_mask_command, {shlex.join(words)}, for {scan.path}"
        try:
            done = subprocess.run(
                filled, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"{said}: cannot be started ({error}): is it installed?") from error
        if done.returncode:
            raise InputError(f"{said}: ended with status {done.returncode}{_end_of(done.stdout)}")
        written = next((folder / w for w in WRITTEN if (folder / w).is_file()), None)
        if written is None:
            there = ", ".join(sorted(p.name for p in folder.iterdir()))
            raise InputError(
                f"{said}: ended well but wrote no mask; expected {{output}}, or that name with "
                f"_mask or _bet added; there is: {there}{_end_of(done.stdout)}"
            )
        try:
            volume = read_volume(written)
        except InputError as error:
            raise InputError(f"{said}: what it wrote is no mask: {error}") from error
        return _on_grid_of(scan, said, np.nan_to_num(volume.array) != 0, volume.affine)


def _fill(word: str, places: dict[str, str]) -> str:
    for placeholder, path in places.items():
        word = word.replace(placeholder, path)
    return word


def _end_of(output: str) -> str:
    lines = output.strip().splitlines()[-LINES_SHOWN:]
    return "; it said:\n  " + "\n  ".join(lines) if lines else ""


def _on_grid_of(scan: Scan, name: str, mask: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = image_of(mask.astype(np.uint8), affine)
    there = on_grid(image, scan.image)
    whole_mm3 = mask.sum() * np.prod(image.GetSpacing())
    inside_mm3 = sitk.GetArrayFromImage(there).sum() * np.prod(scan.image.GetSpacing())
    if not whole_mm3:
        raise InputError(f"{name}: the mask is empty; expected 1 inside the brain")
    if inside_mm3 < LEAST_INSIDE * whole_mm3:
        raise InputError(
            f"{name}: {100 * inside_mm3 / whole_mm3:.0f} % of the mask lies in the field of view "
            f"of {scan.path}; expected the mask of this very visit, on its own grid"
        )
    return there
