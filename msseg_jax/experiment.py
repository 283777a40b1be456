"""The whole of a run: phantoms if asked for, training, predictions and scores of the held-out."""

import shutil
from pathlib import Path

import jax
from ml_collections import ConfigDict

from msseg_jax.checkpoint import RunFolder
from msseg_jax.data.dataset import find_patients
from msseg_jax.data.phantom import write_phantoms
from msseg_jax.errors import InputError
from msseg_jax.evaluate import format_table, score_patients
from msseg_jax.predict import Predictor, predict_patients
from msseg_jax.train import check_training, train


def run_experiment(config: ConfigDict, workdir: Path) -> None:
    """Train the run of `workdir`, then predict its held-out patients and print their scores.

    Raises:
      InputError: for every kind of bad input; the message says what is wrong and what to do.
    """
    check_training(config, jax.local_devices())
    run = RunFolder(workdir)
    run.create_or_continue(config)
    if config.data.phantom_patients:
        make_phantoms(config, run)
    data = train(config, run)
    print(f"trained: {run.path}")

    held_out = {name for name, _ in data.validation}
    if not held_out:
        return
    root = Path(config.data.root)
    patients = [p for p in find_patients(root, targets=0) if p.name in held_out]
    predictor = Predictor(run.path)
    if predictor.kind == "last":
        print("no validation found any voxel of a new lesion, so there is no best checkpoint")
    run.predictions.mkdir(exist_ok=True)
    failures = predict_patients(
        predictor, patients, predictor.options(), run.predictions, overwrite=True
    )
    if failures:
        raise InputError(f"held-out patients could not be predicted: {failures}")
    print(f"held-out patients, by the {predictor.kind} checkpoint (step {predictor.step}):")
    print(format_table(score_patients(root, run.predictions, sorted(held_out))))


def make_phantoms(config: ConfigDict, run: RunFolder) -> None:
    """Write the phantom patients of a run that is not begun, and make them its data."""
    root = run.path / "phantoms"
    config.data.root = str(root)
    if run.begun:
        return
    shutil.rmtree(root, ignore_errors=True)  # of a configuration that was not trained in the end
    print(f"making {config.data.phantom_patients} phantom patients in {root}")
    write_phantoms(
        root, config.data.phantom_patients, config.seed, spacing_mm=config.data.phantom_spacing_mm
    )
