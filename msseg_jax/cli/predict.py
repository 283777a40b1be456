"""`msseg predict`: find the new lesions of one pair, or of every pair of a folder."""

import argparse
import contextlib
from functools import partial
from importlib import import_module
from pathlib import Path

from msseg_jax.cli.ending import status_after
from msseg_jax.cli.requests import request_of
from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.forward import Progress
from msseg_jax.inference.outputs import (
    IN_MIDDLE,
    Outputs,
    check_files,
    check_places,
    make_folders,
)
from msseg_jax.inference.patients import predict_patients
from msseg_jax.inference.prediction import Prediction, predict
from msseg_jax.inference.results import describe_results, write_results
from msseg_jax.models.folds import runs_of
from msseg_jax.models.released import WEIGHTS
from msseg_jax.prepare.libraries import check_libraries
from msseg_jax.prepare.request import find_scans
from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import ctrl_c_ends_at_once, sigterm_as_ctrl_c
from msseg_jax.system.paths import check_there
from msseg_jax.system.progress import followed, steps
from msseg_jax.volumes.layout import Patient, find_patients
from msseg_jax.volumes.nifti import SUFFIXES

PREPARED = "_prepared"  # added to the name of --output, where --prepare names no folder


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0, or 1 if a patient failed."""
    if flags.prepare is not None:
        check_libraries()
        # Now, before SIGTERM raises an exception: a library that is being imported swallows it.
        with ctrl_c_ends_at_once():
            import_module("msseg_jax.inference.scans")
    models = runs_of(flags.model or [Path(WEIGHTS)])
    outputs, prepared = _outputs(flags), _prepared(flags)
    check_places(outputs, prepared)
    predict_what = _predict_folder if flags.dataset else _predict_pair
    # A pair that is half prepared is cleared away after SIGTERM, as after Ctrl-C.
    with sigterm_as_ctrl_c() if prepared else contextlib.nullcontext():
        return predict_what(flags, models, outputs, prepared)


def _predict_pair(
    flags: argparse.Namespace, models: list[Path], outputs: Outputs, prepared: Path | None
) -> int:
    masks = (flags.mask, flags.brain_mask01, flags.brain_mask02)
    inputs = [path for path in (flags.time01, flags.time02, *masks) if path is not None]
    check_files(outputs, inputs, prepared)
    check_there(*inputs)
    if prepared is None:
        _check_no_folder(flags.time01, flags.time02)
    ensemble, options = _load(flags, models)
    bar = partial(followed, name="batches of tiles")
    if prepared is None:
        name = ", ".join(_short(path) for path in (flags.time01, flags.time02))
        patient = Patient(name, flags.time01, flags.time02, flags.mask)
        prediction = predict(ensemble, patient, options, bar)
    else:
        prediction = _predict_scans(flags, ensemble, options, prepared, bar)
    write_results(prediction, outputs)
    print(describe_results(prediction, outputs))
    return 0


def _predict_scans(
    flags: argparse.Namespace, ensemble: Ensemble, options: Options, prepared: Path, bar: Progress
) -> Prediction:
    # It imports optional libraries, which only --prepare needs.
    from msseg_jax.inference.scans import predict_scan_pair, prepare_pair

    request = request_of(flags, flags.time01, flags.time02)
    with steps("preparing") as say:
        scans = prepare_pair(request, prepared, flags.overwrite, say)
    return predict_scan_pair(ensemble, scans, options, bar)


def _predict_folder(
    flags: argparse.Namespace, models: list[Path], outputs: Outputs, prepared: Path | None
) -> int:
    if prepared is None:
        patients = find_patients(flags.dataset, targets=0)
        make_folders(outputs, flags.dataset, prepared)
        ensemble, options = _load(flags, models)
        failures = predict_patients(ensemble, patients, options, outputs, flags.overwrite)
        return status_after(failures, len(patients), "patients")
    # It imports optional libraries, which only --prepare needs.
    from msseg_jax.inference.scans import predict_scan_pairs

    scans = find_scans(flags.dataset)
    requests = [(request_of(flags, *paths), prepared / name) for name, paths in scans.items()]
    make_folders(outputs, flags.dataset, prepared)
    ensemble, options = _load(flags, models)
    failures = predict_scan_pairs(ensemble, requests, options, outputs, flags.overwrite)
    return status_after(failures, len(requests), "patients")


# --------------------------------------------------------------------------------------- places


def _outputs(flags: argparse.Namespace) -> Outputs:
    """Return where the results go."""
    in_middle = None
    if flags.prepare is not None:
        in_middle = _beside(flags.output, IN_MIDDLE + ("" if flags.dataset else SUFFIXES[0]))
    return Outputs(flags.output, flags.probability, flags.report, flags.uncertainty, in_middle)


def _prepared(flags: argparse.Namespace) -> Path | None:
    """Return the folder for the pair to prepare, or for all of them; None without --prepare."""
    return _beside(flags.output, PREPARED) if flags.prepare is True else flags.prepare


def _beside(path: Path, ending: str) -> Path:
    """Return a file or folder in the same place, named after it."""
    if path.name in ("", ".."):  # as of ".", which does not say what it is called
        path = path.resolve()
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return path.parent / (stem + ending)


def _short(path: Path) -> str:
    """Return a file's name after its folder's."""
    return "/".join(path.resolve().parts[-2:])


def _check_no_folder(*visits: Path) -> None:
    """Raise InputError for a visit that is a folder."""
    for path in visits:
        if path.is_dir():
            raise InputError(
                f"{path}: is a folder; expected a NIfTI file on the other visit's grid, or add "
                "--prepare, which takes folders of DICOM files and brings the visits together"
            )


# ------------------------------------------------------------------------------------- networks


def _load(flags: argparse.Namespace, models: list[Path]) -> tuple[Ensemble, Options]:
    """Load the networks, print which they are, and choose how they are applied."""
    ensemble = Ensemble(models)
    first = ensemble.members[0].network
    if flags.uncertainty is not None and len(ensemble.members) == 1:
        raise InputError(
            f"--uncertainty: {first.source} is only one network; expected several that may "
            "disagree: give two or more --model, the folder of a cross-validation, or a model file "
            "of several networks"
        )
    options = ensemble.options(
        overlap=flags.overlap, threshold=flags.threshold,
        min_lesion_mm3=flags.min_lesion_mm3, batch_size=flags.batch_size, tile=flags.tile,
    )  # fmt: skip
    if not flags.model:
        title = first.about.title if first.about else WEIGHTS
        print(
            f"no --model given: the released weights, {title} ({models[0]}); "
            "for research, not for clinical use"
        )
    for member in ensemble.members:
        print(f"model: {member}")
    return ensemble, options
