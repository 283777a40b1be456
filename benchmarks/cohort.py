"""Predict a large cohort of small pairs, some of them broken, and check the outcome.

    python -m benchmarks.cohort --pairs 1000 --broken 0.05 --seed 0

Makes the pairs, breaks some of them in ten ways, and runs `msseg predict --dataset` with the
released weights. Then it checks:

- each good pair has a mask, and those of a sample are equal to the masks of single predictions;
- each broken pair has no mask, and is listed with the reason;
- the exit status is 1 if there are broken pairs, and 0 if not;
- the memory of the process grows by at most 150 MB. This is not measured in runs of less than a
  minute, because the memory grows while the program starts.

Exits with 1 if a check fails. The brains are balls that hardly exceed one patch of the network.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from scipy import ndimage

from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02

SHAPE = (64, 64, 64)
SPACING_MM = 0.8  # that of the released weights, so that nothing is resampled
RADIUS_VOXELS = 28.4  # the brain has 57 voxels along each axis, a patch has 56
TEXTURES = 8  # distinct brains; each pair is a variation of one of them
MOST_GROWTH_MB = 150.0  # from the second fifth of the run to the last
SAMPLE_S = 1.0  # between two measurements of the memory
LEAST_SAMPLES = 60  # in shorter runs, the second fifth belongs to the start of the program

# ---------------------------------------------------------------------------------- the pairs


def make_textures() -> np.ndarray:
    """Return smooth random fields: (TEXTURES, D, H, W), with mean 0 and standard deviation 1."""
    rng = np.random.default_rng(0)
    fields = np.stack(
        [ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3) for _ in range(TEXTURES)]
    )
    return fields / fields.std(axis=(1, 2, 3), keepdims=True)


def make_pair(folder: Path, textures: np.ndarray, rng: np.random.Generator) -> None:
    """Write one pair in the layout of MSSEG-2, in one of eight orders of storage."""
    places = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    brain = np.linalg.norm(places, axis=0) < RADIUS_VOXELS
    texture = np.roll(rng.choice(textures), rng.integers(-9, 10, 3), axis=(0, 1, 2))
    visits = [
        (rng.uniform(0.8, 1.2) * (100 + 12 * texture + rng.normal(0, 2, SHAPE))) * brain
        for _ in range(2)
    ]
    for _ in range(rng.integers(0, 4)):  # new lesions
        centre = rng.integers(-12, 13, 3)[:, None, None, None]
        lesion = np.linalg.norm(places - centre, axis=0) < rng.uniform(2, 5)
        visits[1] = visits[1] * np.where(lesion, 1.6, 1)
    affine = np.diag([*(SPACING_MM * rng.choice([-1.0, 1.0], 3)), 1.0])
    folder.mkdir(parents=True)
    for name, array in (
        (TIME01, visits[0].astype(np.float32)),
        (TIME02, visits[1].astype(np.float32)),
        (BRAIN_MASK, brain.astype(np.uint8)),
    ):
        nib.save(nib.Nifti1Image(array, affine), folder / name)


# ------------------------------------------------------------------------ ten ways to break them


def _truncate(folder: Path) -> None:
    content = (folder / TIME01).read_bytes()
    (folder / TIME01).write_bytes(content[: len(content) // 2])


def _crop(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        image = nib.load(folder / name)
        array = np.asarray(image.dataobj)[:-1]
        nib.save(nib.Nifti1Image(array, image.affine), folder / name)

    return change


def _remove_second(folder: Path) -> None:
    (folder / TIME02).unlink()


def _rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        image = nib.load(folder / name)
        array = change(np.asarray(image.dataobj).copy())
        nib.save(nib.Nifti1Image(array, image.affine), folder / name)

    return rewrite


def _with_nan(array: np.ndarray) -> np.ndarray:
    array[30:32, 30, 30] = np.nan
    return array


def _small(array: np.ndarray) -> np.ndarray:
    array[:12] = array[-12:] = 0
    return array


def _write_text(folder: Path) -> None:
    (folder / TIME02).write_text("see the archive for this scan\n", encoding="utf-8")


def _link_to_itself(folder: Path) -> None:
    (folder / TIME01).unlink()
    (folder / TIME01).symlink_to(TIME01)


# {name: (what to do with the folder of a pair, pattern of the reason)}
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncate, r"truncated"),
    "other_grid": (_crop(TIME02), r"has \(63, 64, 64\) voxels"),
    "no_second": (_remove_second, rf"{re.escape(TIME02)}.*no such file"),
    "empty_mask": (_rewrite(BRAIN_MASK, np.zeros_like), r"the brain would be empty"),
    "nan": (_rewrite(TIME02, _with_nan), r"2 voxels are NaN or infinite"),
    "constant": (_rewrite(TIME01, lambda a: np.full_like(a, 7)), r"every voxel is 7"),
    "text": (_write_text, r"is not a readable NIfTI image|truncated or damaged"),
    "other_mask": (_crop(BRAIN_MASK), r"brain_mask.*has \(63, 64, 64\) voxels"),
    "loop": (_link_to_itself, rf"{re.escape(TIME01)}.*no such file"),
    "small_brain": (_rewrite(BRAIN_MASK, _small), r"smaller than a patch"),
}

# ------------------------------------------------------------------------------------ the run


def make_cohort(root: Path, pairs: int, broken: float, seed: int) -> dict[str, str]:
    """Write the pairs, and return the faults: {patient: name of the fault}."""
    shutil.rmtree(root, ignore_errors=True)
    textures = make_textures()
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(pairs)[: round(broken * pairs)]
    kinds = list(FAULTS)
    faults = {f"pair_{k:05}": kinds[n % len(kinds)] for n, k in enumerate(sorted(chosen))}
    for k in range(pairs):
        name = f"pair_{k:05}"
        make_pair(root / name, textures, np.random.default_rng((seed, k)))
        if name in faults:
            FAULTS[faults[name]][0](root / name)
    return faults


def run_watched(command: list[str], errors: Path) -> tuple[int, list[float]]:
    """Run a command; return its exit status and its memory over time, in MB."""
    memory_mb = []
    with errors.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=subprocess.DEVNULL)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                memory_mb.append(watched.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                break
            time.sleep(SAMPLE_S)
    return process.wait(), memory_mb


def growth_mb(memory_mb: list[float]) -> float | None:
    """Return how much the memory grew from the second fifth of a run to the last one.

    Args:
      memory_mb: measured at equal intervals. If there are too few values, the result is None.
    """
    if len(memory_mb) < LEAST_SAMPLES:
        return None
    fifth = len(memory_mb) // 5
    early, late = memory_mb[fifth : 2 * fifth], memory_mb[-fifth:]
    return float(np.median(late) - np.median(early))


def listed_failures(text: str) -> dict[str, str]:
    """Return the patients in the list at the end of the output: {patient: reason}."""
    listed = text.rpartition(" failed:\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in listed.splitlines():
        if start := re.match(r"  (\S+): (.*)", line):
            name = start[1]
            found[name] = start[2]
        elif name:
            found[name] += "\n" + line
    return found


def problems_of(
    root: Path, masks: Path, faults: dict[str, str], failures: dict[str, str]
) -> list[str]:
    """Return a message for each pair whose outcome is wrong."""
    problems = []
    for name in sorted(path.name for path in root.iterdir()):
        has_mask = (masks / f"{name}.nii.gz").is_file()
        fault = faults.get(name)
        if fault is None:
            if not has_mask or name in failures:
                problems.append(f"{name}: good, but failed: {failures.get(name, 'no mask')}")
        elif has_mask:
            problems.append(f"{name}: {fault}, but it has a mask")
        elif not re.search(FAULTS[fault][1], failures.get(name, ""), re.DOTALL):
            problems.append(f"{name}: {fault}, but the reason is {failures.get(name)!r}")
    return problems


def differs_singly(root: Path, masks: Path, name: str, work: Path) -> str | None:
    """Predict one pair by a command of its own; return a message if the mask differs."""
    pair, output = root / name, work / f"{name}.nii.gz"
    command = [
        sys.executable, "-m", "msseg_jax", "predict", "-t1", pair / TIME01, "-t2", pair / TIME02,
        f"--mask={pair / BRAIN_MASK}", "-o", output,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    one, other = (np.asarray(nib.load(p).dataobj) for p in (output, masks / output.name))
    return None if np.array_equal(one, other) else f"{name}: a single prediction differs"


def main() -> int:
    """Run the command; return 1 if a check fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--broken", type=float, default=0.05, help="share of the pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--singles", type=int, default=20, help="pairs that are predicted again")
    parser.add_argument("--folder", type=Path, default=Path("build/cohort"))
    flags = parser.parse_args()
    root, masks = flags.folder / "pairs", flags.folder / "masks"
    for folder in (masks, flags.folder / "singles"):
        shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    faults = make_cohort(root, flags.pairs, flags.broken, flags.seed)
    print(f"{flags.pairs} pairs, {len(faults)} broken, made in {time.monotonic() - start:.0f} s")
    start = time.monotonic()
    errors = flags.folder / "stderr.txt"
    status, memory_mb = run_watched(
        [sys.executable, "-m", "msseg_jax", "predict", "--dataset", str(root), "-o", str(masks)],
        errors,
    )
    seconds = time.monotonic() - start
    failures = listed_failures(errors.read_text(encoding="utf-8"))
    problems = problems_of(root, masks, faults, failures)
    if status != bool(faults):
        problems.append(f"the exit status is {status}, not {int(bool(faults))}")
    growth = growth_mb(memory_mb)
    if growth is not None and growth > MOST_GROWTH_MB:
        problems.append(
            f"the memory grew by {growth:.0f} MB; expected at most {MOST_GROWTH_MB:.0f} MB"
        )
    good = [path.name for path in sorted(root.iterdir()) if path.name not in faults]
    sample = np.random.default_rng(flags.seed).permutation(good)[: flags.singles]
    (flags.folder / "singles").mkdir(parents=True)
    for name in sample:
        if not problems and (
            problem := differs_singly(root, masks, name, flags.folder / "singles")
        ):
            problems.append(problem)
    grew = "growth not measured in a short run" if growth is None else f"grew by {growth:.0f} MB"
    print(
        f"predicted in {seconds:.0f} s, {seconds / flags.pairs:.2f} s per pair; exit status "
        f"{status}; {len(failures)} listed as failed; memory at most {max(memory_mb):.0f} MB, "
        f"{grew}; {len(sample)} predicted singly"
    )
    print("\n".join(problems) or "all checks passed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
