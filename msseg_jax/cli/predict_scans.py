"""`msseg predict --prepare`: prepare raw scans, then find the new lesions.

This module imports the optional libraries for preparing scans. `flags/predict.py` checks that they
are installed.
"""

import argparse
import time
from functools import partial
from pathlib import Path

from msseg_jax.cli.prediction import end_folder, load_networks, models_of, outputs_of
from msseg_jax.cli.requests import request_of
from msseg_jax.inference.cohort import check_cohort
from msseg_jax.inference.outputs import (
    IN_MIDDLE,
    Outputs,
    check_files,
    check_places,
    make_folders,
)
from msseg_jax.inference.record import check_record_place
from msseg_jax.inference.results import describe_pair, write_pair
from msseg_jax.inference.scans import predict_scan_pair, predict_scan_pairs, prepare_pair
from msseg_jax.prepare.folder import PICTURE
from msseg_jax.prepare.request import find_scans
from msseg_jax.system.backend import start_backend
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.paths import check_there
from msseg_jax.system.progress import followed, steps
from msseg_jax.volumes.names import SUFFIXES, stem

PREPARED = "_prepared"  # added to the name of --output if --prepare has no value


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0, or 1 if a patient failed."""
    start_backend()
    models = models_of(flags)
    prepared = _next_to(flags.output, PREPARED) if flags.prepare is True else flags.prepare
    in_middle = _next_to(flags.output, IN_MIDDLE + ("" if flags.dataset else SUFFIXES[0]))
    outputs = outputs_of(flags, in_middle)
    check_places(outputs, prepared)
    predict = _predict_folder if flags.dataset else _predict_pair
    # So that an incomplete prepared pair is deleted after SIGTERM, as after Ctrl-C.
    with sigterm_as_ctrl_c():
        return predict(flags, models, outputs, prepared)


def _predict_pair(
    flags: argparse.Namespace, models: list[Path], outputs: Outputs, prepared: Path
) -> int:
    masks = (flags.brain_mask01, flags.brain_mask02)
    inputs = [path for path in (flags.time01, flags.time02, *masks) if path is not None]
    check_files(outputs, inputs, prepared)
    check_record_place(outputs)
    check_there(*inputs)
    ensemble, options = load_networks(flags, models)
    with steps("preparing") as say:
        request = request_of(flags, flags.time01, flags.time02)
        scans = prepare_pair(request, prepared, flags.overwrite, say)
    bar = partial(followed, name="batches of tiles")
    prediction = predict_scan_pair(ensemble, scans, options, bar)
    write_pair(prediction, outputs, time.perf_counter() - flags.began_s)
    said = "prepared before" if scans.was_there else "prepared"
    print(f"{said}: {prepared / PICTURE} shows whether the visits match")
    print(describe_pair(prediction, outputs, time.perf_counter() - flags.began_s))
    return 0


def _predict_folder(
    flags: argparse.Namespace, models: list[Path], outputs: Outputs, prepared: Path
) -> int:
    scans, problems = find_scans(flags.dataset, "--dataset")
    requests = [(request_of(flags, *paths), prepared / name) for name, paths in scans.items()]
    check_cohort(scans, outputs)
    make_folders(outputs, flags.dataset, prepared)
    ensemble, options = load_networks(flags, models)
    tally = predict_scan_pairs(ensemble, requests, options, outputs, flags.overwrite)
    return end_folder(tally, problems, outputs, flags.began_s)


def _next_to(path: Path, ending: str) -> Path:
    """Return a path in the same folder: the name of `path` without .nii.gz, then `ending`."""
    if path.name in ("", ".."):  # "." and ".." do not contain the name of the folder
        path = path.resolve()
    return path.parent / (stem(path) + ending)
