"""`msseg predict`: find the new lesions of one pair on a common grid, or of a folder of pairs."""

import argparse
import contextlib
import time
from functools import partial
from pathlib import Path

from msseg_jax.cli.prediction import end_folder, load_networks, models_of, outputs_of
from msseg_jax.inference.cohort import check_cohort
from msseg_jax.inference.outputs import Outputs, check_files, check_places, make_folders
from msseg_jax.inference.patients import predict_patients
from msseg_jax.inference.prediction import predict_pair
from msseg_jax.inference.record import check_record_place
from msseg_jax.inference.results import describe_pair, write_pair
from msseg_jax.prepare.request import PREFIXES, VISITS
from msseg_jax.system.backend import start_backend
from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.paths import check_there
from msseg_jax.system.progress import followed
from msseg_jax.volumes.layout import TIME01, Patient, find_pairs, patient_folders
from msseg_jax.volumes.pair import read_pair


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0, or 1 if a patient failed."""
    start_backend()
    models = models_of(flags)
    outputs = outputs_of(flags)
    check_places(outputs, prepared=None)
    if not flags.dataset:
        return _predict_pair(flags, models, outputs)
    with sigterm_as_ctrl_c():  # so that the tables are written also at a time limit
        return _predict_folder(flags, models, outputs)


def _predict_pair(flags: argparse.Namespace, models: list[Path], outputs: Outputs) -> int:
    inputs = [path for path in (flags.time01, flags.time02, flags.mask) if path is not None]
    check_files(outputs, inputs, prepared=None)
    check_record_place(outputs)
    check_there(*inputs)
    _check_no_folder(flags.time01, flags.time02)
    name = ", ".join(_short(path) for path in (flags.time01, flags.time02))
    patient = Patient(name, flags.time01, flags.time02, flags.mask)
    pair = read_pair(patient)  # before the networks are loaded, because the pair may be unusable
    ensemble, options = load_networks(flags, models)
    bar = partial(followed, name="batches of tiles")
    prediction = predict_pair(ensemble, patient, pair, options, bar)
    write_pair(prediction, outputs, time.perf_counter() - flags.began_s)
    print(describe_pair(prediction, outputs, time.perf_counter() - flags.began_s))
    return 0


def _predict_folder(flags: argparse.Namespace, models: list[Path], outputs: Outputs) -> int:
    patients, problems = find_pairs(flags.dataset, "--dataset")
    if not patients:
        _check_no_raw_scans(flags.dataset)
        raise InputError("\n".join(problems.values()))
    check_cohort([patient.name for patient in patients], outputs)
    make_folders(outputs, flags.dataset, prepared=None)
    ensemble, options = load_networks(flags, models)
    tally = predict_patients(ensemble, patients, options, outputs, flags.overwrite)
    return end_folder(tally, problems, outputs, flags.began_s)


def _check_no_raw_scans(root: Path) -> None:
    """Raise InputError if the folders of the patients hold raw scans instead of pairs."""
    starts = tuple(prefix + VISITS[0] for prefix in PREFIXES)
    names: list[str] = []
    for folder in patient_folders(root)[0]:
        with contextlib.suppress(OSError):
            names += sorted(path.name for path in folder.iterdir())
    raw = next((name for name in names if name.lower().startswith(starts)), None)
    if raw is not None and TIME01 not in names:
        raise InputError(
            f"--dataset={root}: no folder holds {TIME01}, but there are raw scans, such as {raw}. "
            "To predict raw scans, add --prepare."
        )


def _short(path: Path) -> str:
    """Return the name of a file, preceded by that of its folder."""
    return "/".join(path.resolve().parts[-2:])


def _check_no_folder(*visits: Path) -> None:
    """Raise InputError if a visit is a folder."""
    for path in visits:
        if path.is_dir():
            raise InputError(
                f"{path}: is a folder. Expected a NIfTI file on the grid of the other visit. For "
                "a folder of DICOM files, add --prepare, which brings both visits onto one grid."
            )
