"""Predicted masks against the reference maps of a folder: tables, intervals and a report.

    python -m msseg_jax.evaluate --reference=ROOT --prediction=DIR --output=DIR

ROOT is a folder in the MSSEG-2 layout, DIR holds <patient>.nii.gz, as predict --dataset writes it.
"""

import argparse
import logging
from functools import partial
from pathlib import Path

from msseg_jax.cli.ending import run_command
from msseg_jax.evaluation.tables import format_summary, format_table
from msseg_jax.report.evaluation_folder import run, say_left_out

PROGRAM = "python -m msseg_jax.evaluate"


# ---------------------------------------------------------------------------- command line


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        PROGRAM,
        allow_abbrev=False,
        description="Scores of predicted new-lesion masks, by the rules of the MSSEG-2 challenge, "
        "and a report to look at.",
    )
    parser.add_argument(
        "--reference", required=True, type=Path, metavar="ROOT",
        help="folder in the MSSEG-2 layout, with the consensus and any experts",
    )  # fmt: skip
    parser.add_argument(
        "--prediction", required=True, type=Path, metavar="DIR",
        help="folder of <patient>.nii.gz, masks",
    )  # fmt: skip
    parser.add_argument(
        "--probability", type=Path, metavar="DIR",
        help="folder of <patient>.nii.gz, probability maps, for the curve over thresholds",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder to write tables (CSV, JSON) and report.html into",
    )  # fmt: skip
    parser.add_argument(
        "--model", type=Path, action="append", default=[], metavar="MODEL",
        help="what predicted, as predict --model takes it (each of an ensemble; 'weights': the "
        "released ones): warns of visits unlike those it was trained on",
    )  # fmt: skip
    parser.add_argument("--no_report", action="store_true", help="tables only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 if a patient could not be scored."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    return run_command(PROGRAM, partial(_evaluate, parse_arguments(arguments)))


def _evaluate(flags: argparse.Namespace) -> int:
    evaluation = run(
        flags.reference, flags.prediction, flags.output, flags.probability,
        models=flags.model, report=not flags.no_report,
    )  # fmt: skip
    print(format_table(evaluation))
    print(format_summary(evaluation))
    print(f"\nwritten: {flags.output}")
    say_left_out(evaluation)
    return 1 if evaluation.left_out else 0
