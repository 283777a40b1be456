"""Predict the held-out patients with the trained network, and score them."""

from pathlib import Path

from msseg_jax.evaluation.evaluate import evaluate
from msseg_jax.evaluation.tables import format_table
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.patients import predict_patients
from msseg_jax.models.fitted import fitted_by_patient
from msseg_jax.models.folds import Folds
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.report.evaluation_folder import (
    check_evaluation_folder,
    report_file,
    say_left_out,
    write_evaluation,
)
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import find_patients


def predict(ensemble: Ensemble, root: Path, names: list[str], outputs: Outputs) -> None:
    """Predict some patients of a folder: write their masks and probabilities.

    Raises:
      InputError: a patient cannot be predicted.
    """
    patients = [patient for patient in find_patients(root, targets=0) if patient.name in names]
    for folder in outputs.paths:
        folder.mkdir(exist_ok=True)
    tally = predict_patients(ensemble, patients, ensemble.options(), outputs, overwrite=True)
    if tally.failures:
        lines = [f"{name}: {reason}" for name, reason in tally.failures.items()]
        raise InputError("these held-out patients could not be predicted:\n" + "\n".join(lines))


def print_scores(root: Path, place: RunFolder | Folds, names: list[str]) -> None:
    """Evaluate the predictions of a run or a cross-validation for some patients; print a table."""
    check_evaluation_folder(place.evaluation, root)
    evaluation = evaluate(root, place.predictions, place.probabilities, names)
    fitted = fitted_by_patient([place.path], evaluation.patients)
    write_evaluation(evaluation, place.evaluation, fitted)
    print(format_table(evaluation))
    say_left_out(evaluation)
    print(f"report: {report_file(place.evaluation)}")
