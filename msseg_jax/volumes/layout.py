"""The MSSEG-2 folder: its layout, and every check that a patient must pass before any work.

ROOT/<patient>/flair_time01_on_middle_space.nii.gz, flair_time02_on_middle_space.nii.gz,
               brain_mask.nii.gz (optional), ground_truth.nii.gz (the consensus),
               ground_truth_expert1.nii.gz ... (as many as the configuration has targets for)
               synthetic.json (of a pair that `msseg synthetic` made from a scan)
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json

TIME01 = "flair_time01_on_middle_space.nii.gz"
TIME02 = "flair_time02_on_middle_space.nii.gz"
BRAIN_MASK = "brain_mask.nii.gz"
CONSENSUS = "ground_truth.nii.gz"
EXPERT = "ground_truth_expert{}.nii.gz"
SYNTHETIC = "synthetic.json"

logger = logging.getLogger(__name__)


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


def find_patients(root: Path | str, targets: int) -> list[Patient]:
    """The patients of a folder, by name, with their first `targets` reference maps.

    Whether their files are there and in order is what `read_pair` finds out.

    Raises:
      InputError: no such folder, or no patient in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; expected one in the MSSEG-2 layout, with a folder per "
            "patient (--config.data.root, --dataset or --reference)"
        )
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{root}: no patient folder in it; expected <patient>/{TIME01} and so on")
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
        raise InputError(
            f"{patient.synthetic}: its source is {scan!r}; expected the name of the scan that the "
            "pair was made of, as pairs of one scan stay together: give back a copy, or make the "
            "pairs again"
        )
    return scan
