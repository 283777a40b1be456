"""`msseg evaluate`: score a folder of masks, write the tables and the report."""

import argparse
import logging

from msseg_jax.evaluation.tables import format_summary, format_table
from msseg_jax.report.evaluation_folder import say_left_out, write_evaluation


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 1 if a patient could not be scored, else 0."""
    logging.getLogger("msseg_jax").setLevel(logging.ERROR)  # the report has the warnings
    evaluation = write_evaluation(
        flags.reference, flags.prediction, flags.output, flags.probability,
        models=flags.model, report=not flags.no_report,
    )  # fmt: skip
    print(format_table(evaluation))
    print(format_summary(evaluation))
    print(f"\nwritten: {flags.output}")
    say_left_out(evaluation)
    return 1 if evaluation.left_out else 0
