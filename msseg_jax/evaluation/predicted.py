"""Add to the lesions of an evaluation what `msseg predict` wrote about them."""

import math
from pathlib import Path

import pandas as pd

from msseg_jax.configuration.targets import CHANGES, NEW
from msseg_jax.evaluation.raters import PREDICTION
from msseg_jax.evaluation.scores import LEAST_MM3

COLUMNS = ("side", "mean_probability", "right", "of")  # that are taken from its table
AGREEMENT = 1e-3  # relative difference of volumes; those in a table are rounded


def with_predicted(rows: list[dict], path: Path) -> tuple[list[dict], str | None]:
    """Return the rows of `list_lesions`, with further columns from the table of the prediction.

    A measured value is kept. The table is left out, with a warning, if it does not belong to the
    mask: an edited mask, for example, has other lesions.

    Args:
      rows: the lesions of the reference and of the prediction of one patient.
      path: <patient>_lesions.csv; it may not exist.

    Returns:
      The rows, and a warning if the table is left out.
    """
    if not path.is_file():
        return rows, None
    try:
        table = pd.read_csv(path)
        new = table[table["class"] == CHANGES[NEW]].set_index("lesion")[["volume_mm3", *COLUMNS]]
        known = new[new["volume_mm3"] > LEAST_MM3].to_dict("index")
    except (ValueError, TypeError, KeyError, OSError) as error:
        return rows, f"{path}: cannot be read ({error}). It is left out."
    predicted = [row for row in rows if row["mask"] == PREDICTION]
    same = all(_is_same(row, known.get(row["lesion"])) for row in predicted)
    if not same or len(known) != len(predicted):
        return rows, f"{path}: does not belong to the mask next to it. It is left out."
    filled = [
        row if row["mask"] != PREDICTION else _filled(row, known[row["lesion"]]) for row in rows
    ]
    return filled, None


def _is_same(row: dict, other: dict | None) -> bool:
    return other is not None and math.isclose(
        row["volume_mm3"], other["volume_mm3"], rel_tol=AGREEMENT
    )


def _filled(row: dict, other: dict) -> dict:
    """Return the row with the values of the other that it lacks."""
    return row | {
        name: other[name]
        for name in COLUMNS
        if pd.isna(row.get(name, math.nan)) and pd.notna(other[name])
    }
