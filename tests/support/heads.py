"""Heads for the tests of `prepare`: a phantom, moved and scanned. Also stops commands early."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msseg_jax.cli.main import main
from msseg_jax.prepare import patient as patient_module
from msseg_jax.prepare.registration import on_grid, rigid
from msseg_jax.prepare.scan import Scan, read_scan
from msseg_jax.prepare.visits import Registered, Visit
from msseg_jax.simulate.phantom import write_phantoms
from msseg_jax.volumes import layout

SPACING_MM = 2.0
FAT_FROM_MM, FAT_TO_MM = 8.0, 16.0  # distances from the brain between which the scalp lies
MOTION = rigid(Rotation.from_euler("xyz", (14, -9, 17), degrees=True).as_matrix(), (12, -15, 9))


def write_heads(folder: Path) -> Path:
    """Write two visits of a phantom and its brain mask, and return the folder.

    The second visit is moved by MOTION. The files are time01.nii.gz, time02.nii.gz and
    brain01.nii.gz, which is on the grid of the first visit.
    """
    write_phantoms(folder / "phantoms", 1, 0, spacing_mm=SPACING_MM)
    (patient,) = (path for path in (folder / "phantoms").iterdir() if path.is_dir())
    first, second = (read(patient / name) for name in (layout.TIME01, layout.TIME02))
    sitk.WriteImage(first, str(folder / "time01.nii.gz"))
    sitk.WriteImage(move(second, MOTION), str(folder / "time02.nii.gz"))
    sitk.WriteImage(read(patient / layout.BRAIN_MASK) > 0, str(folder / "brain01.nii.gz"))
    return folder


def flags_of(folder: Path) -> list[str]:
    """Return the flags that give both visits of `write_heads` to a command."""
    return ["-t1", str(folder / "time01.nii.gz"), "-t2", str(folder / "time02.nii.gz")]


def prepare(scans: Path, folder: Path) -> Path:
    """Run `msseg prepare` on the heads of `write_heads`, with their known registration.

    Returns:
      The folder of the prepared pair.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patient_module, "register_visits", known_registration(scans))
        assert main(["prepare", *flags_of(scans), f"--output={folder}"]) == 0
    return folder


def stop_when(at_work: Callable[[], bool], *arguments: str) -> tuple[int, str]:
    """Start `python -m` with the arguments, and send SIGTERM when `at_work` returns true.

    Returns:
      The exit status, and the text on standard error.
    """
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not at_work():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path), sitk.sitkFloat32)


def move(image: sitk.Image, motion: sitk.Transform) -> sitk.Image:
    """Resample the head after `motion` to the grid of `image`."""
    return sitk.Resample(image, image, motion.GetInverse(), sitk.sitkLinear, 0.0)


def with_bright_fat(image: sitk.Image, brain: sitk.Image, cut_mm: float):
    """Add a scalp twice as bright as the brain to a head, and cut `cut_mm` off the top.

    Returns:
      The image, and the part of the brain mask that is still in the field of view.
    """
    array, inside = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(brain) > 0
    away_mm = ndimage.distance_transform_edt(~inside, image.GetSpacing()[::-1])
    scalp = (away_mm > FAT_FROM_MM) & (away_mm < FAT_TO_MM)
    fat = sitk.GetImageFromArray(np.where(scalp, 2 * np.median(array[inside]), array))
    fat.CopyInformation(image)
    up = np.array(image.GetDirection()).reshape(3, 3)[2]  # upward component of each axis
    axis = int(np.abs(up).argmax())
    filled = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {2 - axis})))
    cut = round(cut_mm / image.GetSpacing()[axis])
    kept = [slice(None)] * 3
    kept[axis] = (
        slice(0, int(filled[-1]) - cut) if up[axis] > 0 else slice(int(filled[0]) + cut, None)
    )
    return fat[kept], brain[kept]


def with_thick_slices(image: sitk.Image, brain: sitk.Image, fat: float):
    """Scan a head as hospitals do every day: 18 slices of 7 mm, with a scalp of bright fat.

    The field of view is 126 mm high and ends a little above and below the brain. The head is made
    7 % smaller than the phantom, whose brain is wider than an average one.

    Args:
      fat: brightness of the scalp, relative to that of the brain.

    Returns:
      The image, and its brain mask.
    """
    size_mm = [0.93 * mm for mm in image.GetSpacing()]
    array, inside = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(brain) > 0
    away_mm = ndimage.distance_transform_edt(~inside, size_mm[::-1])
    array[away_mm > 7] = fat * np.median(array[inside])
    array[away_mm > 13] = 0
    whole = sitk.GetImageFromArray(array)
    inside_too = sitk.Image(brain)
    for one in (whole, inside_too):
        one.CopyInformation(image)
        one.SetSpacing(size_mm)
    up = int(np.abs(np.array(image.GetDirection()).reshape(3, 3)[2]).argmax())
    filled = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {2 - up})))
    start, spacing_mm, size = [0.0] * 3, list(size_mm), list(image.GetSize())
    spacing_mm[up], size[up] = 7.0, 18
    start[up] = (filled[0] + filled[-1]) / 2 - (size[up] - 1) / 2 * spacing_mm[up] / size_mm[up]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetOrigin(whole.TransformContinuousIndexToPhysicalPoint(start))
    grid.SetSpacing(spacing_mm)
    grid.SetDirection(image.GetDirection())
    sigma_mm = [0.4 * mm if axis == up else 1e-3 for axis, mm in enumerate(spacing_mm)]
    blurred = sitk.SmoothingRecursiveGaussian(whole, sigma_mm)
    return sitk.Resample(blurred, grid, sitk.Transform(), sitk.sitkLinear, 0.0), on_grid(
        inside_too, grid
    )


def scan_of(image: sitk.Image, folder: Path, name: str) -> Scan:
    path = folder / f"{name}.nii.gz"
    sitk.WriteImage(image, str(path))
    return read_scan(path)


def distances_mm(one: sitk.Transform, other: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Return the distance in mm between the images of each point under two transforms."""
    return np.array(
        [
            np.linalg.norm(np.subtract(one.TransformPoint(p), other.TransformPoint(p)))
            for p in points.tolist()
        ]
    )


def dice(one: sitk.Image, other: sitk.Image) -> float:
    a, b = (sitk.GetArrayFromImage(mask) > 0 for mask in (one, other))
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def known_registration(folder: Path):
    """Return a replacement of `register_visits` that knows the motion of `write_heads`."""

    def register(pair, _):
        first = read(folder / "brain01.nii.gz") > 0
        second = on_grid(first, pair[1].image, MOTION.GetInverse())
        visits = tuple(
            Visit(scan, {}, brain, None, None, None)
            for scan, brain in zip(pair, (first, second), strict=True)
        )
        return Registered(visits, MOTION, 0.9, -0.3)

    return register
