"""The whole of a run: phantoms if asked for, training, predictions and scores of the held-out."""

import json
import shutil
from pathlib import Path

import jax
from ml_collections import ConfigDict

from msseg_jax import evaluate
from msseg_jax.checkpoint import RunFolder
from msseg_jax.data.dataset import find_patients
from msseg_jax.data.files import read_json
from msseg_jax.data.phantom import write_phantoms
from msseg_jax.data.training_set import TrainingSet
from msseg_jax.errors import InputError
from msseg_jax.parallel import main_first
from msseg_jax.predict import Outputs, Predictor, predict_patients
from msseg_jax.train import check_training, train


def run_experiment(config: ConfigDict, workdir: Path) -> None:
    """Train the run of `workdir`, then predict its held-out patients and print their scores.

    Raises:
      InputError: for every kind of bad input; the message says what is wrong and what to do.
    """
    check_training(config, jax.devices())
    run = RunFolder(workdir)
    run.create_or_continue(config)
    if config.data.phantom_patients:
        main_first("phantoms", lambda: make_phantoms(config, run))
        config.data.root = str(phantom_root(run))
    data = train(config, run)
    main_first("scores", lambda: score_held_out(config, run, data))


def score_held_out(config: ConfigDict, run: RunFolder, data: TrainingSet) -> None:
    """Predict the held-out patients of a trained run and print their scores."""
    print(f"trained: {run.path}")
    held_out = {name for name, _ in data.validation}
    if not held_out:
        return
    root = Path(config.data.root)
    patients = [p for p in find_patients(root, targets=0) if p.name in held_out]
    predictor = Predictor(run.path)
    if predictor.kind == "last":
        print("no validation found any voxel of a new lesion, so there is no best checkpoint")
    outputs = Outputs(run.predictions, run.probabilities)
    for folder in outputs.wanted:
        folder.mkdir(exist_ok=True)
    failures = predict_patients(predictor, patients, predictor.options(), outputs, overwrite=True)
    if failures:
        raise InputError(f"held-out patients could not be predicted: {failures}")
    print(f"held-out patients, by the {predictor.kind} checkpoint (step {predictor.step}):")
    evaluation = evaluate.run(
        root, run.predictions, run.evaluation, run.probabilities, sorted(held_out),
        model=run.path,
    )  # fmt: skip
    print(evaluate.format_table(evaluation))
    evaluate.say_left_out(evaluation)
    print(f"report: {evaluate.report_file(run.evaluation)}")


def phantom_root(run: RunFolder) -> Path:
    return run.path / "phantoms"


def make_phantoms(config: ConfigDict, run: RunFolder) -> None:
    """Make the phantom patients of a run, where they are not there, its data.

    Raises:
      InputError: there are other files in their place.
    """
    root = phantom_root(run)
    asked_for = {
        "patients": config.data.phantom_patients,
        "seed": config.seed,
        "spacing_mm": config.data.phantom_spacing_mm,
    }
    record = root / "phantoms.json"  # says that the folder is of our making, and what is in it
    if record.is_file() and read_json(record) == asked_for:
        return
    if root.exists() and not record.is_file():
        raise InputError(
            f"{root}: was not made by this run, and its phantoms would take its place; move it "
            "away, or choose another --workdir"
        )
    print(f"making {config.data.phantom_patients} phantom patients in {root}")
    partial = run.path / ".partial-phantoms"
    shutil.rmtree(partial, ignore_errors=True)
    write_phantoms(partial, asked_for["patients"], config.seed, spacing_mm=asked_for["spacing_mm"])
    (partial / record.name).write_text(json.dumps(asked_for) + "\n")
    shutil.rmtree(root, ignore_errors=True)  # of a configuration that was not trained in the end
    partial.rename(root)
