"""An evaluation's folder: the tables and the report."""

import sys
from collections.abc import Sequence
from pathlib import Path

from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.evaluation.cohort import Evaluation
from msseg_jax.evaluation.evaluate import evaluate
from msseg_jax.evaluation.tables import write_tables
from msseg_jax.models.folds import runs_of
from msseg_jax.system.paths import check_outside


def report_file(output: Path) -> Path:
    """Where `run` writes the report."""
    return output / "report.html"


def say_left_out(evaluation: Evaluation) -> None:
    """List the patients that were not scored, if any, on standard error."""
    if evaluation.left_out:
        print(f"not scored: {len(evaluation.left_out)}", file=sys.stderr)
        for name, reason in evaluation.left_out.items():
            print(f"  {name}: {reason}", file=sys.stderr)


def write_evaluation(
    reference: Path,
    prediction: Path,
    output: Path,
    probability: Path | None = None,
    names: list[str] | None = None,
    models: Sequence[Path] = (),
    report: bool = True,
) -> Evaluation:
    """Evaluate, and write the tables and the report into `output`, which is made.

    Args:
      models: runs and model files that predicted; of a cross-validation, each patient's is the
        run that has not seen it.

    Raises:
      InputError, OSError: bad input, or a folder that cannot be written.
    """
    fitted = _load_preprocessings(models)
    problem = "lies among the patients of --reference, and would be taken for one"
    check_outside(output, reference, problem, may_be_it=True)
    evaluation = evaluate(reference, prediction, probability, names)
    output.mkdir(parents=True, exist_ok=True)
    page = report_file(output)
    page.unlink(missing_ok=True)  # an older one would stand beside tables that it does not fit
    write_tables(evaluation, output)
    if report:
        from msseg_jax.report.evaluation import write_evaluation_report  # and matplotlib

        by_patient = {
            name: [one for run in runs_of(models, name) for one in fitted[run]]
            for name in evaluation.patients
        }
        write_evaluation_report(page, evaluation, reference, prediction, by_patient)
    return evaluation


def _load_preprocessings(models: Sequence[Path]) -> dict[Path, list[Preprocessing]]:
    """What was fitted in each run, and for each network of a model file."""
    if not models:
        return {}
    from msseg_jax.models.networks import preprocessings  # which loads JAX; scores do without

    return {model: preprocessings(model) for model in runs_of(models)}
