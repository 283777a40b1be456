"""Find the patients and their files in a folder with the MSSEG-2 layout.

ROOT/<patient>/flair_time01_on_middle_space.nii.gz, flair_time02_on_middle_space.nii.gz,
               brain_mask.nii.gz (optional), ground_truth.nii.gz (the consensus),
               ground_truth_expert1.nii.gz ... (one for each further target of the configuration),
               synthetic.json (only for a pair that `msseg synthetic` made from a scan),
               no_data.nii.gz (only from `msseg prepare`, if a part of the brain has no data at one
               visit: it is 1 where the first visit has none, and 2 where the second has none)
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.paths import check_folder
from msseg_jax.system.shown import shown

TIME01 = "flair_time01_on_middle_space.nii.gz"
TIME02 = "flair_time02_on_middle_space.nii.gz"
BRAIN_MASK = "brain_mask.nii.gz"
NO_DATA = "no_data.nii.gz"
CONSENSUS = "ground_truth.nii.gz"
EXPERT = "ground_truth_expert{}.nii.gz"
ENLARGING = "enlarging.nii.gz"  # the part of a lesion that has grown
VANISHED = "vanished.nii.gz"  # vanished lesions, and the part of a lesion that has shrunk
LESIONS01, LESIONS02 = "lesions_time01.nii.gz", "lesions_time02.nii.gz"  # all lesions of a visit
SYNTHETIC = "synthetic.json"
LAYOUT = "a folder in the MSSEG-2 layout, with one folder per patient"  # for messages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patient:
    """Paths of the files of one patient."""

    name: str
    time01: Path
    time02: Path
    brain_mask: Path | None  # None: voxels that are non-zero in either visit are brain
    targets: tuple[Path, ...] = ()  # consensus, then experts; empty for inference
    synthetic: Path | None = None  # record of a pair made from a scan; None for a real pair
    no_data: Path | None = None  # parts that the mask leaves out; None if there are none

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the patient that have voxels."""
        mask = () if self.brain_mask is None else (self.brain_mask,)
        return (self.time01, self.time02, *mask, *self.targets)


def find_patients(root: Path | str, targets: int, flag: str = "root") -> list[Patient]:
    """Return the patients of a folder, sorted by name, with `targets` reference maps each.

    Their files are not checked here. `read_pair` checks them.

    Args:
      flag: the flag or field that gives `root`, for messages.

    Raises:
      InputError: the folder does not exist, or contains no patient.
    """
    root = Path(root)
    check_folder(flag, root, LAYOUT)
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{root}: no patient folder in it. Expected <patient>/{TIME01} and so on.")
    return [patient_in(folder, targets) for folder in folders]


def patient_folders(root: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the folders in `root` that may hold a patient, and the entries that cannot be used.

    Hidden entries and files are left out. A file may be a table, a mask, or anything else.

    Returns:
      The folders, sorted by name, and {name: what is wrong with it}.
    """
    folders, problems = [], {}
    for path in sorted(root.iterdir()):
        name = path.name
        if name.startswith("."):
            continue
        try:
            if path.is_dir():
                name.encode()
                folders.append(path)
            elif path.is_symlink() and not path.suffix and not path.exists():
                problems[name] = f"{path}: is a link to nothing or to itself. Expected a folder."
        except UnicodeEncodeError:
            shown = name.encode(errors="backslashreplace").decode()
            problems[shown] = (
                f"{root}: the folder {shown} has a name that is not UTF-8. Rename the folder."
            )
        except OSError as error:
            problems[name] = unreadable(path, error)
    return folders, problems


def find_pairs(root: Path, flag: str) -> tuple[list[Patient], dict[str, str]]:
    """Return the patients of a folder that have both visits, and the others with what is missing.

    Args:
      flag: the flag that gives `root`, for messages.

    Raises:
      InputError: the folder does not exist, or contains no patient folder.
    """
    check_folder(flag, root, LAYOUT)
    folders, problems = patient_folders(root)
    if not folders and not problems:
        raise InputError(f"{root}: no patient folder in it. Expected <patient>/{TIME01} and so on.")
    patients = []
    for folder in folders:
        try:
            patient = patient_in(folder)
            missing = [path for path in (patient.time01, patient.time02) if not path.exists()]
        except OSError as error:
            problems[folder.name] = unreadable(folder, error)
            continue
        if missing:
            problems[folder.name] = f"{', '.join(map(str, missing))}: no such file."
        else:
            patients.append(patient)
    return patients, problems


def unreadable(path: Path, error: OSError) -> str:
    """Return a message about a path that the system does not let us read."""
    return f"{path}: cannot be read ({error.strerror or error}). Check the permissions."


def patient_in(folder: Path, targets: int = 0) -> Patient:
    """Return the patient of one folder, with the first `targets` reference maps."""
    names = [CONSENSUS, *(EXPERT.format(k) for k in range(1, targets))][:targets]
    mask, synthetic, no_data = folder / BRAIN_MASK, folder / SYNTHETIC, folder / NO_DATA
    return Patient(
        folder.name,
        folder / TIME01,
        folder / TIME02,
        mask if mask.is_file() else None,
        tuple(folder / name for name in names),
        synthetic if synthetic.is_file() else None,
        no_data if no_data.is_file() else None,
    )


def check_not_in_patient(flag: str, folder: Path) -> None:
    """Raise InputError if a folder for patients is the folder of a patient, or lies in one.

    Args:
      flag: the flag that gives `folder`, for the message.
    """
    place = folder.resolve()
    for above in (place, *place.parents):
        if (above / TIME01).is_file():
            raise InputError(
                f"{flag}={folder}: {above} is the folder of a patient (it holds {TIME01}). "
                "Expected a folder for patients. Choose another folder."
            )


def scan_of(patient: Patient) -> str | None:
    """Return the name of the scan that a pair was made from, or None for a real pair.

    Raises:
      InputError: the record of how the pair was made is damaged.
    """
    if patient.synthetic is None:
        return None
    record = read_json(patient.synthetic)
    scan = record.get("source") if isinstance(record, dict) else None
    if not isinstance(scan, str):
        raise InputError(
            f"{patient.synthetic}: its source is {shown(scan)}. Expected the name of the scan that "
            "the pair was made from, because all pairs of one scan must be in the same fold. "
            "Restore the file from a copy, or make the pairs again."
        )
    return scan
