"""New lesions of a pair of FLAIR visits, or of every pair of a folder, with trained networks.

    python -m msseg_jax.predict -t1 A.nii.gz -t2 B.nii.gz -o new.nii.gz
    python -m msseg_jax.predict --model=RUN --dataset=ROOT --output=DIR

Without `--model` the released weights predict; several are an ensemble. `--prepare` takes scans as
they left the scanner.

For research, not for clinical use.
"""

import argparse
import contextlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from msseg_jax.cli.ending import status_after
from msseg_jax.cli.requests import request_of
from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.patient import (
    Outputs,
    Preparation,
    predict_patient,
    predict_patients,
)
from msseg_jax.models.folds import runs_of
from msseg_jax.models.released import WEIGHTS
from msseg_jax.prepare.libraries import check_libraries
from msseg_jax.prepare.request import Request, find_scans
from msseg_jax.system.errors import InputError
from msseg_jax.system.failures import continuing_after
from msseg_jax.system.interruption import ctrl_c_ends_at_once, sigterm_as_ctrl_c
from msseg_jax.system.paths import check_outside, check_there
from msseg_jax.system.progress import followed, steps
from msseg_jax.volumes.layout import Patient, find_patients, patient_in
from msseg_jax.volumes.nifti import SUFFIXES, check_output

# What is added to the name of --output, of a file or of a folder:
PREPARED = "_prepared"  # for prepared pairs, where --prepare names no folder
IN_MIDDLE = "_on_middle_space"  # for masks on their grid


def run(flags: argparse.Namespace) -> int:
    if flags.prepare is not None:
        check_libraries()
        # Now, before SIGTERM raises an exception: a library that is being imported swallows it.
        with ctrl_c_ends_at_once():
            import_module("msseg_jax.prepare.scanner_grid")
            import_module("msseg_jax.prepare.patient")
    flags.models = runs_of(flags.model or [Path(WEIGHTS)])
    outputs, prepared = _outputs(flags), _prepared(flags)
    _check_places(flags, outputs, prepared)
    predict = _predict_folder if flags.dataset else _predict_pair
    # So that a pair that is half prepared is cleared away, as after Ctrl-C.
    with sigterm_as_ctrl_c() if prepared else contextlib.nullcontext():
        return predict(flags, outputs, prepared)


def _outputs(flags: argparse.Namespace) -> Outputs:
    in_middle = None
    if flags.prepare is not None:
        in_middle = _beside(flags.output, IN_MIDDLE + ("" if flags.dataset else SUFFIXES[0]))
    return Outputs(flags.output, flags.probability, flags.report, flags.uncertainty, in_middle)


def _prepared(flags: argparse.Namespace) -> Path | None:
    """The folder of the pair to prepare, or of the pairs; None where there is none to prepare."""
    return _beside(flags.output, PREPARED) if flags.prepare is True else flags.prepare


def _beside(path: Path, ending: str) -> Path:
    """A file or folder in the same place, called after it."""
    if path.name in ("", ".."):  # as of ".", which does not say what it is called
        path = path.resolve()
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return path.parent / (stem + ending)


def _check_places(flags: argparse.Namespace, outputs: Outputs, prepared: Path | None) -> None:
    """Raises InputError for outputs that one place cannot hold."""
    places = {}
    for name, path in (
        ("--output", outputs.mask), ("--probability", outputs.probability),
        ("--uncertainty", outputs.uncertainty),
        (f"the mask on the prepared pair's grid (--output with {IN_MIDDLE})", outputs.in_middle),
    ):  # fmt: skip
        if path is not None and (other := places.setdefault(path.resolve(), name)) != name:
            raise InputError(f"{name} is {path}, as {other}; wanted two places")
    for path in outputs.wanted:
        if prepared is not None:
            problem = f"lies in {prepared}, the folder of --prepare, which holds only what it makes"
            check_outside(path, prepared, problem)


def _start(flags: argparse.Namespace) -> tuple[Ensemble, Options]:
    ensemble = Ensemble(flags.models)
    first = ensemble.members[0].network
    if flags.uncertainty is not None and len(ensemble.members) == 1:
        raise InputError(
            f"--uncertainty: {first.source} alone has none to disagree with; wanted two or more "
            "--model, the folder of a cross-validation, or a model file of several networks"
        )
    options = ensemble.options(
        overlap=flags.overlap, threshold=flags.threshold,
        min_lesion_mm3=flags.min_lesion_mm3, batch_size=flags.batch_size, tile=flags.tile,
    )  # fmt: skip
    if not flags.model:
        print(
            f"no --model given: the released weights, {first.about.title} ({flags.models[0]}); "
            "for research, not for clinical use"
        )
    for member in ensemble.members:
        print(f"model: {member}")
    return ensemble, options


def _predict_pair(flags: argparse.Namespace, outputs: Outputs, prepared: Path | None) -> int:
    first, second = flags.time01.resolve(), flags.time02.resolve()
    name = f"{first.parent.name}/{first.name}, {second.parent.name}/{second.name}"
    patient = Patient(name, flags.time01, flags.time02, flags.mask)
    masks = (flags.brain_mask01, flags.brain_mask02)
    inputs = [path.resolve() for path in (*patient.files, *masks) if path is not None]
    for output in outputs.wanted:
        check_output(output, (".html",) if output is flags.report else SUFFIXES)
        if output.resolve() in inputs:
            raise InputError(f"{output}: is an input; choose another name for the output")
    for path in inputs:
        if prepared is not None:
            problem = (
                f"is an input, and lies in {prepared}, the folder of --prepare, which is made anew"
            )
            check_outside(path, prepared, problem)
    check_there(flags.time01, flags.time02, flags.mask, *masks)
    if prepared is None and (folders := [p for p in (flags.time01, flags.time02) if p.is_dir()]):
        raise InputError(
            f"{folders[0]}: is a folder; wanted a NIfTI file on the other visit's grid, or add "
            "--prepare, which takes folders of DICOM files and brings the visits together"
        )
    ensemble, options = _start(flags)
    preparation = None
    if prepared is not None:
        request = request_of(flags, flags.time01, flags.time02)
        with steps("preparing") as say:
            preparation = _prepare(request, prepared, flags.overwrite, say)
        patient = patient_in(prepared)

    def progress(batches):
        return followed(batches, "batches of tiles")

    print(predict_patient(ensemble, patient, options, outputs, progress, preparation))
    return 0


def _prepare(
    request: Request, folder: Path, overwrite: bool, say: Callable = lambda step: None
) -> Preparation:
    """Prepare a pair. What is to be known of it is said, and reported, with the prediction."""
    from msseg_jax.prepare.patient import prepare_patient
    from msseg_jax.prepare.scanner_grid import ScannerGrid

    prepared = prepare_patient(request, folder, overwrite, say)
    tqdm.write(f"prepared{' before' if prepared.was_there else ''}: {folder}")
    scanner = partial(ScannerGrid.of, folder, request.time02, request.series[1])
    return Preparation(prepared.record, (request.time01, request.time02), scanner)


def _predict_folder(flags: argparse.Namespace, outputs: Outputs, prepared: Path | None) -> int:
    if prepared is None:
        requests = {}
        patients = find_patients(flags.dataset, targets=0)
    else:
        scans = find_scans(flags.dataset)
        requests = {name: request_of(flags, *paths) for name, paths in scans.items()}
    for folder in filter(None, (*outputs.wanted, prepared)):
        # Files called after patients may lie beside their folders, but not a folder for each.
        problem = "lies among the patients of --dataset, and would be taken for one"
        check_outside(folder, flags.dataset, problem, may_be_it=folder is not prepared)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: {error}; wanted a folder to write in") from error
        check_output(folder / "patient.nii.gz")
    ensemble, options = _start(flags)
    failures, preparations = {}, {}
    if requests:
        for name, request in tqdm(requests.items(), "preparing", disable=None, leave=False):
            with continuing_after(name, failures):
                preparations[name] = _prepare(request, prepared / name, flags.overwrite)
        patients = [patient_in(prepared / name) for name in preparations]
    failures |= predict_patients(
        ensemble, patients, options, outputs, flags.overwrite, preparations
    )
    return status_after(failures, len(requests or patients), "patients")
