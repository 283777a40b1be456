"""Write the tables of an evaluation to files, and format them for the terminal."""

import json
import math
from pathlib import Path

import pandas as pd

from msseg_jax.evaluation.cohort import CONFIDENCE, Evaluation, format_number, summary_tables
from msseg_jax.evaluation.raters import WITH
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.tables import write_table
from msseg_jax.system.text_table import text_table
from msseg_jax.system.words import count_of

# ---------------------------------------------------------------------------- files and text


def write_tables(evaluation: Evaluation, output: Path) -> list[Path]:
    """Write evaluation.json, scores.csv, lesions.csv, summary.csv, and curve.csv if it has rows."""
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
            path.unlink(missing_ok=True)  # it may be left from an earlier evaluation
            continue
        # Whole numbers that may be missing are floats in pandas, and would be written as 3.0.
        whole = {column: "Int64" for column in ("right", "of") if column in table}
        write_table(path, table.astype(whole))
        written.append(path)
    everything = {
        **{name: _records(table) for name, table in tables.items()},
        "left_out": evaluation.left_out,
    }
    path = output / "evaluation.json"
    write_beside(
        path,
        lambda file: file.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8"),
    )
    return [*written, path]


def _records(table: pd.DataFrame) -> list[dict]:
    """Return the rows of a table as dicts, with None in place of NaN, which JSON does not have."""
    return [
        {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def format_table(evaluation: Evaluation) -> str:
    """Return the scores of the prediction as text: a row per patient, then a line for all."""
    table = evaluation.of_prediction
    rows = [("patient", " Dice", "   F1", "found", "missed", "false", "reference", "predicted")]
    for row in table.itertuples():
        rows.append(
            (
                row.patient,
                format_number(row.Dice, 3),
                format_number(row.F1_score, 3),
                str(row.detected),
                str(row.reference_lesions - row.detected),
                str(row.rater_lesions - row.confirmed),
                f"{row.reference_mm3:.0f} mm3",
                f"{row.rater_mm3:.0f} mm3",
            )
        )
    found, total = int(table["detected"].sum()), int(table["reference_lesions"].sum())
    false = int((table["rater_lesions"] - table["confirmed"]).sum())
    share = f" ({100 * found / total:.0f} %)" if total else ""
    dice = format_number(table.loc[table["group"] == WITH, "Dice"].mean(), 3)
    total_line = (
        f"{found} of {count_of(total, 'new lesion')} found{share}, {false} false; mean Dice "
        f"of patients with new lesions {dice}"
    )
    return text_table(rows, "<>>>>>>>") + "\n" + total_line


def format_summary(evaluation: Evaluation) -> str:
    """Return `summary_tables` as text: the prediction with its interval, then the other raters."""
    lines = []
    for title, raters, table in summary_tables(evaluation):
        rows = [(title, raters[0], f"{CONFIDENCE:.0%} interval", *raters[1:])]
        for measure, values in table:
            (mean, interval), *others = values
            rows.append((measure, mean, interval, *(other for other, _ in others)))
        alignment = "<><" + ">" * (len(raters) - 1)
        widths = (32, 10, 18, *[10] * (len(raters) - 1))
        lines += ["", text_table(rows, alignment, widths)]
    return "\n".join(lines)
