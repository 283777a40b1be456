"""The MSSEG-2 folder: its layout, and every check that a patient must pass before any work.

ROOT/<patient>/flair_time01_on_middle_space.nii.gz, flair_time02_on_middle_space.nii.gz,
               brain_mask.nii.gz (optional), ground_truth.nii.gz (the consensus),
               ground_truth_expert1.nii.gz ... (as many as the configuration has targets for)
               synthetic.json (of a pair that `data.synthetic` has made of a scan)
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msseg_jax.data.files import read_json
from msseg_jax.data.volumes import Volume, grid_difference, mask_problem, read_checked
from msseg_jax.errors import InputError

TIME01 = "flair_time01_on_middle_space.nii.gz"
TIME02 = "flair_time02_on_middle_space.nii.gz"
BRAIN_MASK = "brain_mask.nii.gz"
CONSENSUS = "ground_truth.nii.gz"
EXPERT = "ground_truth_expert{}.nii.gz"
SYNTHETIC = "synthetic.json"

MAX_LABELS = 256  # of a mask, with 0; FreeSurfer's maps of the whole brain have up to about 200
MAX_BRAIN_SHARE = 0.9  # of a volume; a "brain" beyond it is an image that was never masked

logger = logging.getLogger(__name__)


class DatasetError(InputError):
    """Problems of a patient or of a whole folder, one per line."""


@dataclass(frozen=True)
class Patient:
    """Where the files of one patient lie."""

    name: str
    time01: Path
    time02: Path
    brain_mask: Path | None  # None: the brain is what is non-zero in either visit
    targets: tuple[Path, ...] = ()  # consensus, then experts; empty for inference
    synthetic: Path | None = None  # how a pair was made of a scan; None: it was not

    @property
    def files(self) -> tuple[Path, ...]:
        mask = () if self.brain_mask is None else (self.brain_mask,)
        return (self.time01, self.time02, *mask, *self.targets)


@dataclass(frozen=True)
class Pair:
    """The checked volumes of one patient, all on one grid."""

    time01: Volume
    time02: Volume
    brain: np.ndarray  # (D, H, W) bool
    targets: np.ndarray  # (T, D, H, W) uint8, 0 or 1, nothing outside the brain


def find_patients(root: Path | str, targets: int) -> list[Patient]:
    """The patients of a folder, by name, with their first `targets` reference maps.

    Whether their files are there and in order is what `read_pair` finds out.

    Raises:
      DatasetError: no such folder, or no patient in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(
            f"{root}: no such folder; wanted one in the MSSEG-2 layout, with a folder per patient "
            "(--config.data.root, --dataset or --reference)"
        )
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DatasetError(f"{root}: no patient folder in it; wanted <patient>/{TIME01} and so on")
    return [patient_in(folder, targets) for folder in folders]


def patient_in(folder: Path, targets: int = 0) -> Patient:
    """The patient of one folder, with the first `targets` reference maps."""
    names = [CONSENSUS, *(EXPERT.format(k) for k in range(1, targets))][:targets]
    mask, synthetic = folder / BRAIN_MASK, folder / SYNTHETIC
    return Patient(
        folder.name,
        folder / TIME01,
        folder / TIME02,
        mask if mask.is_file() else None,
        tuple(folder / name for name in names),
        synthetic if synthetic.is_file() else None,
    )


def scan_of(patient: Patient) -> str | None:
    """Name of the scan that a pair was made of; None: it was not made of one.

    Raises:
      InputError: the record of how the pair was made is damaged.
    """
    if patient.synthetic is None:
        return None
    record = read_json(patient.synthetic)
    scan = record.get("source") if isinstance(record, dict) else None
    if not isinstance(scan, str):
        raise DatasetError(
            f"{patient.synthetic}: its source is {scan!r}; wanted the name of the scan that the "
            "pair was made of, as pairs of one scan stay together: give back a copy, or make the "
            "pairs again"
        )
    return scan


def read_pair(patient: Patient) -> Pair:
    """Read all volumes of a patient and check each of them and their agreement.

    Raises:
      DatasetError: with every problem of this patient, one per line.
    """
    problems: list[str] = []
    time01 = read_checked(patient.time01, None, problems)
    time02 = read_checked(patient.time02, None, problems)
    if time01 and time02 and (difference := grid_difference(time01, time02)):
        problems.append(
            f"{difference}; or start from the scans: predict with --prepare brings them together, "
            "as python -m msseg_jax.prepare does"
        )
    for visit in filter(None, (time01, time02)):
        if np.ptp(visit.array) == 0:
            problems.append(
                f"{visit.path}: every voxel is {visit.array.flat[0]:g}; wanted a FLAIR image: "
                "export it again"
            )
    if time01 and time02 and np.array_equal(time01.array, time02.array):
        problems.append(
            f"{patient.time01} and {patient.time02} hold the same voxels; wanted two visits: the "
            "same scan was given twice"
        )
    mask = read_checked(patient.brain_mask, time01, problems) if patient.brain_mask else None
    if mask and (problem := brain_mask_problem(mask, (time01, time02))):
        problems.append(problem)
    targets = [_read_target(path, time01, problems) for path in patient.targets]
    if problems:
        raise DatasetError("\n".join(problems))

    brain = _brain(patient, time01, time02, mask)
    for path, target in zip(patient.targets, targets, strict=True):
        outside = int(target[~brain].sum())
        if outside:
            logger.warning("%s: %d voxels outside the brain are left out", path, outside)
            target *= brain
    stacked = np.stack(targets) if targets else np.zeros((0, *brain.shape), dtype=np.uint8)
    return Pair(time01, time02, brain, stacked)


def brain_mask_problem(mask: Volume, visits: tuple[Volume | None, ...] = ()) -> str | None:
    """What keeps a volume from being a brain mask, or a map of the brain's parts, in words."""
    wanted = "wanted a brain mask, 1 inside and 0 outside"
    if (mask.array != np.rint(mask.array)).any():
        return (
            f"{mask.path}: has values that are no whole numbers; {wanted}: it looks like a "
            "probability map or an image; threshold it, or give the mask"
        )
    for visit in filter(None, visits):
        if np.array_equal(mask.array, visit.array):
            return f"{mask.path} and {visit.path} hold the same voxels; {wanted}: give the mask"
    # Of whole numbers; so only where they are far apart do they need to be counted, which is slow.
    if np.ptp(mask.array) >= MAX_LABELS and (labels := np.unique(mask.array).size) > MAX_LABELS:
        return (
            f"{mask.path}: has {labels} different values; {wanted}, or a map of the brain's parts "
            f"with at most {MAX_LABELS}: it looks like an image; give the mask"
        )
    return None


def _read_target(path: Path, like: Volume | None, problems: list[str]) -> np.ndarray | None:
    """A reference map as (D, H, W) uint8, 0 or 1."""
    target = read_checked(path, like, problems)
    if target is None:
        return None
    if problem := mask_problem(path, target.array):
        problems.append(problem)
    return target.array.astype(np.uint8)


def _brain(patient: Patient, time01: Volume, time02: Volume, mask: Volume | None) -> np.ndarray:
    """The brain's voxels, (D, H, W) bool."""
    if mask is not None:
        source = str(mask.path)
        brain = mask.array != 0
        cure = "give a mask of the brain, 1 inside and 0 outside"
    else:
        source = f"{time01.path} and {time02.path} (no brain mask)"
        brain = (time01.array != 0) | (time02.array != 0)
        cure = "mask the images, or give a brain mask (hd-bet, mri_synthstrip and bet make one)"
        logger.warning(
            "%s: no brain mask; the brain is what is non-zero in either visit", patient.name
        )
    share = brain.mean()
    if not 0 < share <= MAX_BRAIN_SHARE:
        what = "nothing" if share == 0 else f"{100 * share:.1f} % of the volume"
        raise DatasetError(
            f"{source}: the brain would be {what}; wanted more than nothing and at most "
            f"{100 * MAX_BRAIN_SHARE:.0f} %: {cure}"
        )
    return brain
