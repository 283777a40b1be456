"""An evaluation's folder: the tables and the report."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.evaluation.cohort import Evaluation
from msseg_jax.evaluation.tables import write_tables
from msseg_jax.report.evaluation import write_evaluation_report
from msseg_jax.system.paths import check_outside


def report_file(output: Path) -> Path:
    """Return where `write_evaluation` writes the report."""
    return output / "report.html"


def check_evaluation_folder(output: Path, reference: Path) -> None:
    """Raise InputError for an output folder that would be taken for a patient."""
    problem = "lies among the patients of --reference, and would be taken for one"
    check_outside(output, reference, problem, may_be_it=True)


def write_evaluation(
    evaluation: Evaluation,
    output: Path,
    fitted: Mapping[str, Sequence[Preprocessing]],
    report: bool = True,
) -> None:
    """Write the tables and the report into a folder, which is made.

    Args:
      fitted: by patient, the preprocessing of the networks that predicted it; may be empty.

    Raises:
      OSError: the folder cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    page = report_file(output)
    page.unlink(missing_ok=True)  # an older one would stand beside tables that it does not fit
    write_tables(evaluation, output)
    if report:
        write_evaluation_report(page, evaluation, fitted)


def say_left_out(evaluation: Evaluation) -> None:
    """List the patients that were not scored, if any, on standard error."""
    if evaluation.left_out:
        print(f"not scored: {len(evaluation.left_out)}", file=sys.stderr)
        for name, reason in evaluation.left_out.items():
            print(f"  {name}: {reason}", file=sys.stderr)
