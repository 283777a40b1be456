"""Measure the time and the memory of `msseg prepare` for large scans.

Usage: python -m benchmarks.prepare_memory TIME01 TIME02 [--shape 512 512 320] [--spacing_mm 0.5]

Both scans are interpolated to cubic voxels around their centres, with some noise, and prepared by
`msseg prepare` in a separate process. The resident memory of this process and of all processes that
it starts is read every 50 ms. The table shows the largest sum during each step.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk

EVERY_S = 0.05
NOISE = 3.0  # standard deviation; without it, the air would have only a few values


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("time01", type=Path)
    parser.add_argument("time02", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 320))
    parser.add_argument("--spacing_mm", type=float, default=0.5)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scans = [Path(name, f"time0{visit}.nii.gz") for visit in (1, 2)]
        for seed, (path, scan) in enumerate(
            zip(scans, (flags.time01, flags.time02), strict=True), start=1
        ):
            sitk.WriteImage(enlarge(scan, flags.shape, flags.spacing_mm, seed), str(path))
        steps = measure(scans, Path(name, "prepared"))
    print(f"{'step':<20}{'seconds':>9}{'memory, GiB':>14}")
    for step, seconds, peak_bytes in steps:
        print(f"{step:<20}{seconds:>9.1f}{peak_bytes / 2**30:>14.2f}")
    total_s, peak_bytes = sum(step[1] for step in steps), max(step[2] for step in steps)
    print(f"{'all':<20}{total_s:>9.1f}{peak_bytes / 2**30:>14.2f}")


def enlarge(path: Path, shape: tuple[int, ...], spacing_mm: float, seed: int) -> sitk.Image:
    """Return a scan on cubic voxels around its centre, with noise: int16."""
    scan = sitk.ReadImage(str(path), sitk.sitkFloat32)
    grid = sitk.Image(list(shape), sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetDirection(scan.GetDirection())
    centres = [
        np.array(
            image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
        )
        for image in (scan, grid)
    ]
    grid.SetOrigin((centres[0] - centres[1]).tolist())
    array = sitk.GetArrayFromImage(sitk.Resample(scan, grid, sitk.Transform(), sitk.sitkBSpline))
    array += np.random.default_rng(seed).normal(0, NOISE, array.shape).astype(np.float32)
    large = sitk.GetImageFromArray(np.rint(np.clip(np.abs(array), 0, 32767)).astype(np.int16))
    large.CopyInformation(grid)
    return large


def measure(scans: list[Path], output: Path) -> list[tuple[str, float, int]]:
    """Prepare the scans. Return (name, seconds, largest memory in bytes) of each step."""
    flags = ["-t1", str(scans[0]), "-t2", str(scans[1]), "-o", str(output)]
    said = output.with_suffix(".log")
    steps, start_s = [["starting", 0.0, 0]], time.perf_counter()
    with said.open("w") as log:
        command = [sys.executable, "-m", "msseg_jax", "prepare", *flags]
        process = subprocess.Popen(command, stderr=log)
        while process.poll() is None:
            for line in said.read_text(encoding="utf-8").splitlines()[len(steps) - 1 :]:
                steps.append([line.removeprefix("preparing: "), time.perf_counter(), 0])
            steps[-1][2] = max(steps[-1][2], _resident_bytes(process.pid))
            time.sleep(EVERY_S)
    if process.returncode:
        sys.exit(said.read_text(encoding="utf-8"))
    ends_s = [step[1] for step in steps[1:]] + [time.perf_counter()]
    begins_s = [start_s] + [step[1] for step in steps[1:]]
    return [
        (name, end - begin, peak)
        for (name, _, peak), begin, end in zip(steps, begins_s, ends_s, strict=True)
    ]


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and of all processes that it started."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended
        pass
    return total


if __name__ == "__main__":
    main()
