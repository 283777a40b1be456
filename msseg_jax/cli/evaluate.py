"""`msseg evaluate`: score a folder of masks, and write the tables and the report."""

import argparse
import logging
from pathlib import Path

from msseg_jax.cli.ending import last_line
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.evaluation.answers import (
    count_answers,
    format_counts,
    read_answers,
    write_answers,
    write_reference,
)
from msseg_jax.evaluation.evaluate import evaluate
from msseg_jax.evaluation.tables import format_summary, format_table
from msseg_jax.report.evaluation_folder import (
    check_evaluation_folder,
    report_file,
    say_left_out,
    write_evaluation,
)
from msseg_jax.system.paths import check_folder, check_writable_folder
from msseg_jax.system.words import count_of
from msseg_jax.volumes.layout import LAYOUT, find_patients

MASKS = "a folder of masks, <patient>.nii.gz"
MAPS = "a folder of probability maps, <patient>.nii.gz"
REFERENCE = "reference"  # folder in --output for the lesions that readers found true


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 1 if a patient could not be scored, else 0."""
    logger = logging.getLogger("msseg_jax")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the report shows the warnings
    try:
        return _evaluate(flags) if flags.answers is None else _count_answers(flags)
    finally:
        logger.setLevel(level)


def _evaluate(flags: argparse.Namespace) -> int:
    check_folder("--reference", flags.reference, LAYOUT)
    check_folder("--prediction", flags.prediction, MASKS)
    if flags.probability is not None:
        check_folder("--probability", flags.probability, MAPS)
    fitted = _fitted(flags.model, flags.reference) if flags.model else {}
    check_evaluation_folder(flags.output, flags.reference)
    evaluation = evaluate(flags.reference, flags.prediction, flags.probability)
    write_evaluation(evaluation, flags.output, fitted, report=not flags.no_report)
    print(format_table(evaluation))
    print(format_summary(evaluation))
    say_left_out(evaluation)
    content = count_of(len(evaluation.patients), "patient")
    if evaluation.left_out:
        content += f", {len(evaluation.left_out)} not scored"
    kind, path = "report", report_file(flags.output)
    if flags.no_report:
        kind, path = "tables", flags.output
    print(last_line(kind, path, content, flags.began_s))
    return 1 if evaluation.left_out else 0


def _count_answers(flags: argparse.Namespace) -> int:
    answers = read_answers(flags.answers)
    check_writable_folder(flags.output)
    counts = count_answers(answers)
    if flags.marked is not None:
        check_folder("--marked", flags.marked, "the folder of the masks that the readers judged")
        write_reference(answers, flags.marked, flags.output / REFERENCE)
    write_answers(answers, counts, flags.output)
    print(format_counts(counts))
    if flags.marked is not None:
        print(f"reference: {flags.output / REFERENCE} (the lesions that are true)")
    content = count_of(answers["patient"].nunique(), "patient")
    print(last_line("tables", flags.output, content, flags.began_s))
    return 0


def _fitted(models: list[Path], reference: Path) -> dict[str, list[Preprocessing]]:
    """Return the preprocessing that was fitted for each model, by patient."""
    # Imported here because it imports JAX, which is slow, and only --model needs it.
    from msseg_jax.models.fitted import fitted_by_patient
    from msseg_jax.system.backend import start_backend

    start_backend()
    return fitted_by_patient(models, [patient.name for patient in find_patients(reference, 0)])
