"""Predicted masks against the reference maps of a folder: tables, intervals and a report.

    python -m msseg_jax.evaluate --reference=ROOT --prediction=DIR --output=DIR

ROOT is a folder in the MSSEG-2 layout, DIR holds <patient>.nii.gz, as predict --dataset writes it.
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from msseg_jax.cohort import CONFIDENCE, Evaluation, format_number, summarise, summary_tables
from msseg_jax.command import run_command
from msseg_jax.data.dataset import CONSENSUS, find_patients
from msseg_jax.data.files import write_beside
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.errors import InputError
from msseg_jax.folds import runs_of
from msseg_jax.process import for_each
from msseg_jax.raters import WITH, count_over_thresholds, list_lesions, read_masks, score_raters

PROGRAM = "python -m msseg_jax.evaluate"
SUFFIX = ".nii.gz"


def evaluate(
    reference: Path,
    prediction: Path,
    probability: Path | None = None,
    names: list[str] | None = None,
) -> Evaluation:
    """Score PREDICTION/<patient>.nii.gz against REFERENCE/<patient>, for each patient there is.

    Args:
      probability: folder of <patient>.nii.gz, probability maps; some patients may lack one.
      names: the patients to score; None for all, and then patients that one side lacks are
        reported in `left_out`, as those are whose files cannot be used.

    Raises:
      InputError: a folder is missing or empty, or no patient at all could be scored.
    """
    folders = {patient.name: reference / patient.name for patient in find_patients(reference, 0)}
    masks = _files_in(prediction)
    if names is None:
        names = sorted(folders.keys() | masks.keys())
    maps = {} if probability is None else _files_in(probability)
    if probability is not None and not maps.keys() & set(names):
        raise InputError(
            f"{probability}: no file in it is called as a patient is; wanted <patient>{SUFFIX}, "
            f"such as {names[0]}{SUFFIX}"
        )

    def score(name: str) -> tuple[str, tuple | str]:
        if name not in masks:
            return name, f"{prediction / (name + SUFFIX)}: no such prediction"
        if name not in folders:
            return name, f"{reference / name / CONSENSUS}: no such reference"
        try:
            patient = read_masks(folders[name], masks[name], maps.get(name))
        except InputError as error:
            return name, str(error)
        return name, (score_raters(patient), list_lesions(patient), count_over_thresholds(patient))

    rows, left_out = ([], [], []), {}
    for name, result in for_each(score, names, "scores"):
        if isinstance(result, str):
            left_out[name] = result
            continue
        for table, part in zip(rows, result, strict=True):
            table += [{"patient": name, **row} for row in part]
    if not rows[0]:
        raise InputError(
            f"no patient of {reference} could be scored:\n" + "\n".join(left_out.values())
        )
    scores, lesions, curve = (pd.DataFrame(table) for table in rows)
    return Evaluation(scores, lesions, curve, summarise(scores), left_out)


def _files_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; wanted one with <patient>{SUFFIX}")
    files = sorted(p for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: no {SUFFIX} file in it; wanted <patient>{SUFFIX}")
    return {path.name.removesuffix(SUFFIX): path for path in files}


# ---------------------------------------------------------------------------- what is written


def write_tables(evaluation: Evaluation, output: Path) -> list[Path]:
    """scores.csv, lesions.csv, summary.csv, curve.csv where there is one, and evaluation.json."""
    tables = {
        "scores": evaluation.scores,
        "lesions": evaluation.lesions,
        "summary": evaluation.summary,
        "curve": evaluation.curve,
    }
    written = []
    for name, table in tables.items():
        path = output / f"{name}.csv"
        if table.empty:
            path.unlink(missing_ok=True)  # of an earlier evaluation
            continue
        write_beside(path, lambda file, table=table: table.to_csv(file, index=False))
        written.append(path)
    everything = {name: _records(table) for name, table in tables.items()}
    everything["left_out"] = evaluation.left_out
    path = output / "evaluation.json"
    write_beside(path, lambda file: file.write_text(json.dumps(everything, indent=1) + "\n"))
    return [*written, path]


def _records(table: pd.DataFrame) -> list[dict]:
    """Rows as dicts; what is not defined is None, as JSON has no NaN."""
    return [
        {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def format_table(evaluation: Evaluation) -> str:
    """The prediction against the consensus: a row per patient, then the means."""
    table = evaluation.of_prediction
    width = max(len("patient"), *(len(name) for name in table["patient"]))
    lines = [f"{'patient':<{width}}   Dice     F1  found  missed  false  reference  predicted"]
    for row in table.itertuples():
        lines.append(
            f"{row.patient:<{width}}"
            f"  {format_number(row.Dice, 3):>5}  {format_number(row.F1_score, 3):>5}"
            f"  {row.detected:5}  {row.reference_lesions - row.detected:6}"
            f"  {row.rater_lesions - row.confirmed:5}"
            f"  {row.reference_mm3:5.0f} mm3  {row.rater_mm3:5.0f} mm3"
        )
    found, total = int(table["detected"].sum()), int(table["reference_lesions"].sum())
    false = int((table["rater_lesions"] - table["confirmed"]).sum())
    share = f" ({100 * found / total:.0f} %)" if total else ""
    dice = format_number(table.loc[table["group"] == WITH, "Dice"].mean(), 3)
    lines.append(
        f"{found} of {total} new lesions found{share}, {false} false; mean Dice of patients "
        f"with new lesions {dice}"
    )
    return "\n".join(lines)


def format_summary(evaluation: Evaluation) -> str:
    """The means of `summary_tables`: the prediction's with its interval, then the experts'."""
    lines = []
    for title, raters, table in summary_tables(evaluation):
        heads = [f"{rater:>12}" for rater in raters]
        heads[0] += f"  {f'{CONFIDENCE:.0%} interval':<18}"
        lines += ["", f"{title:<32}" + "".join(heads).rstrip()]
        for measure, values in table:
            cells = [f"{mean:>12}" for mean, _ in values]
            cells[0] += f"  {values[0][1]:<18}"
            lines.append(f"{measure:<32}" + "".join(cells).rstrip())
    return "\n".join(lines)


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


def report_file(output: Path) -> Path:
    """Where `run` writes the report."""
    return output / "report.html"


def say_left_out(evaluation: Evaluation) -> None:
    """List the patients that were not scored, if any, on standard error."""
    if evaluation.left_out:
        print(f"not scored: {len(evaluation.left_out)}", file=sys.stderr)
        for name, reason in evaluation.left_out.items():
            print(f"  {name}: {reason}", file=sys.stderr)


def run(
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
    if reference.resolve() in output.resolve().parents:
        raise InputError(
            f"{output}: lies among the patients of --reference, and would be taken for one; choose "
            "a folder elsewhere"
        )
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
    from msseg_jax.trained import preprocessings  # which loads JAX; scores do without

    return {model: preprocessings(model) for model in runs_of(models)}


if __name__ == "__main__":
    sys.exit(main())
