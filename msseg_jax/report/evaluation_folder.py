"""Write the folder of an evaluation: the tables and the report."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.evaluation.cohort import Evaluation
from msseg_jax.evaluation.tables import write_tables
from msseg_jax.report.evaluation import write_evaluation_report
from msseg_jax.system.paths import check_outside, check_writable_folder
from msseg_jax.system.words import warning_line


def report_file(output: Path) -> Path:
    """Return the path of the report that `write_evaluation` writes."""
    return output / "report.html"


def check_evaluation_folder(output: Path, reference: Path) -> None:
    """Raise InputError if the folder would be mistaken for a patient's, or cannot be written."""
    problem = "lies among the patients of --reference and would be mistaken for one of them"
    check_outside(output, reference, problem, may_be_it=True)
    check_writable_folder(output)


def write_evaluation(
    evaluation: Evaluation,
    output: Path,
    fitted: Mapping[str, Sequence[Preprocessing]],
    report: bool = True,
) -> None:
    """Write the tables and the report into a folder. Make the folder if it does not exist.

    Args:
      fitted: for each patient, the preprocessing of the networks that predicted it. May be empty.
      report: whether to write the report.

    Raises:
      OSError: the folder cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    page = report_file(output)
    page.unlink(missing_ok=True)  # an older report would not match the new tables
    write_tables(evaluation, output)
    if report:
        write_evaluation_report(page, evaluation, fitted)


def say_left_out(evaluation: Evaluation) -> None:
    """Print warnings, and the patients that were not scored, if any, to standard error."""
    for name, warning in evaluation.warnings.items():
        print(warning_line(name, warning), file=sys.stderr)
    if evaluation.left_out:
        print(f"not scored: {len(evaluation.left_out)}", file=sys.stderr)
        for name, reason in evaluation.left_out.items():
            print(f"  {name}: {reason}", file=sys.stderr)
