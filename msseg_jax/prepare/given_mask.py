"""Read brain masks that the user gives: from a file, or from a program that the user names.

Programs write their masks to different files. With `{output}` = mask.nii.gz, mri_synthstrip writes
exactly this file. bet and version 1 of hd-bet write mask_mask.nii.gz next to the stripped image;
version 2 of hd-bet writes mask_bet.nii.gz. If a program writes only a stripped image, its non-zero
voxels are the brain.
"""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.images import affine_of, image_of, is_set
from msseg_jax.prepare.registration import on_grid
from msseg_jax.prepare.scan import Scan
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.mask_fit import heed_misfit, measure_mask_fit
from msseg_jax.volumes.masks import brain_mask_problem, is_inside
from msseg_jax.volumes.nifti import check_finite, read_volume
from msseg_jax.volumes.volume import Volume

PLACEHOLDERS = ("{input}", "{output}")
OUTPUT = "mask.nii.gz"
WRITTEN = ("mask_mask.nii.gz", "mask_bet.nii.gz", OUTPUT)  # the first existing file is the mask
LEAST_INSIDE = 0.9  # share of the mask that must lie in the scan's field of view
LINES_SHOWN = 5  # number of output lines that are shown if a program fails


def read_mask(path: Path, scan: Scan) -> sitk.Image:
    """Read a mask file, and resample it to the grid of its visit: uint8.

    The file may have another grid, for example if the mask was made from converted DICOM files.
    Only its position in scanner coordinates matters.

    Raises:
      InputError: The file cannot be read, is not a mask, or lies outside the field of view.
    """
    volume = read_volume(path)
    check_finite(volume)
    if problem := brain_mask_problem(volume):
        raise InputError(problem)
    return _on_grid_of(scan, str(path), is_inside(volume.array), _affine_for(scan, volume))


def check_fit(mask: sitk.Image, name: str, scan: Scan) -> tuple[str, ...]:
    """Check that a mask lies where the brain of its visit is. Return a warning if it may not.

    Args:
      mask: on the grid of the scan.
      name: names the mask, in messages.

    Raises:
      InputError: It lies elsewhere.
    """
    voxels = sitk.GetArrayViewFromImage(scan.image).T
    fit = measure_mask_fit(voxels, is_set(mask), affine_of(scan.image))
    return heed_misfit(name, {scan.path: fit})


def check_command(command: str) -> list[str]:
    """Split a command line into words. Raise InputError if a placeholder is missing."""
    try:
        words = shlex.split(command, posix=os.name != "nt")  # keep backslashes on Windows
    except ValueError as error:
        raise InputError(f"--brain_mask_command={command}: {error}") from error
    missing = [p for p in PLACEHOLDERS if not any(p in word for word in words)]
    if missing:
        raise InputError(
            f"--brain_mask_command={command}: does not contain {' or '.join(missing)}; expected a "
            'command with both, such as "mri_synthstrip -i {input} -m {output}".'
        )
    return words


def run_command(words: list[str], scan: Scan) -> sitk.Image:
    """Run a program that makes the mask of a visit, and return it on the visit's grid: uint8.

    The program is started without a shell, in the current working directory. It gets a copy of the
    scan in a temporary folder.

    Args:
      words: the command, as `check_command` returns it.

    Raises:
      InputError: The program cannot be started, fails, or writes no mask.
    """
    with tempfile.TemporaryDirectory(prefix="msseg_jax-") as name:
        folder = Path(name)
        places = {"{input}": str(folder / "flair.nii.gz"), "{output}": str(folder / OUTPUT)}
        sitk.WriteImage(scan.image, places["{input}"])
        filled = [_fill(word, places) for word in words]
        label = f"--brain_mask_command ({shlex.join(words)}) for {scan.path}"
        try:
            done = subprocess.run(
                filled, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                f"{label}: cannot be started ({error}). Check that it is installed."
            ) from error
        if done.returncode:
            raise InputError(
                f"{label}: failed with exit status {done.returncode}{_last_lines(done.stdout)}"
            )
        written = next((folder / w for w in WRITTEN if (folder / w).is_file()), None)
        if written is None:
            names = ", ".join(sorted(p.name for p in folder.iterdir()))
            raise InputError(
                f"{label}: the program succeeded, but wrote no mask; expected the file {{output}}, "
                f"or that name with _mask or _bet added. The folder contains: {names}"
                f"{_last_lines(done.stdout)}"
            )
        try:
            volume = read_volume(written)
        except InputError as error:
            raise InputError(f"{label}: its output is not a mask: {error}") from error
        return _on_grid_of(scan, label, np.nan_to_num(volume.array) != 0, _affine_for(scan, volume))


def _fill(word: str, places: dict[str, str]) -> str:
    for placeholder, path in places.items():
        word = word.replace(placeholder, path)
    return word


def _last_lines(output: str) -> str:
    lines = output.strip().splitlines()[-LINES_SHOWN:]
    return ". Its last output:\n  " + "\n  ".join(lines) if lines else ""


def _affine_for(scan: Scan, mask: Volume) -> np.ndarray:
    """Return the affine of a mask in the coordinates that are used for its scan.

    If the header of the scan holds two geometries, another program may have given the mask the one
    that is not used here.
    """
    other = scan.other_affine
    if other is None or mask.array.shape != scan.image.GetSize():
        return mask.affine
    return affine_of(scan.image) if np.allclose(mask.affine, other, atol=1e-3) else mask.affine


def _on_grid_of(scan: Scan, name: str, mask: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = image_of(mask.astype(np.uint8), affine)
    there = on_grid(image, scan.image)
    whole_mm3 = mask.sum() * np.prod(image.GetSpacing())
    inside_mm3 = sitk.GetArrayFromImage(there).sum() * np.prod(scan.image.GetSpacing())
    if not whole_mm3:
        raise InputError(f"{name}: the mask is empty; expected 1 inside the brain. Check the mask.")
    if inside_mm3 < LEAST_INSIDE * whole_mm3:
        raise InputError(
            f"{name}: only {100 * inside_mm3 / whole_mm3:.0f} % of the mask lies in the field of "
            f"view of {scan.path}; expected at least {100 * LEAST_INSIDE:.0f} %. Give a mask that "
            "was made from this visit."
        )
    return there
