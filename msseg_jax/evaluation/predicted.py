"""Add to the lesions of an evaluation what `msseg predict` wrote about them."""

import logging
import math
from pathlib import Path

import pandas as pd

from msseg_jax.evaluation.raters import PREDICTION
from msseg_jax.evaluation.scores import LEAST_MM3

COLUMNS = ("side", "mean_probability", "right", "of")  # that are taken from its table
NEW = "new"  # class of the lesions in the mask
AGREEMENT = 1e-3  # volumes in a table are rounded

logger = logging.getLogger(__name__)


def with_predicted(rows: list[dict], path: Path) -> list[dict]:
    """Return the rows of `list_lesions`, with further columns from the table of the prediction.

    A measured value is kept. The table is left out, with a warning, if it does not belong to the
    mask: an edited mask, for example, has other lesions.

    Args:
      rows: the lesions of the reference and of the prediction of one patient.
      path: <patient>_lesions.csv; it may not exist.
    """
    if not path.is_file():
        return rows
    try:
        table = pd.read_csv(path)
        new = table[table["class"] == NEW].set_index("lesion")[["volume_mm3", *COLUMNS]]
    except (ValueError, KeyError, OSError) as error:
        logger.warning("%s: cannot be read (%s). It is left out.", path, error)
        return rows
    known = new[new["volume_mm3"] > LEAST_MM3].to_dict("index")
    predicted = [row for row in rows if row["mask"] == PREDICTION]
    same = all(_is_same(row, known.get(row["lesion"])) for row in predicted)
    if not same or len(known) != len(predicted):
        logger.warning("%s: does not belong to the mask next to it. It is left out.", path)
        return rows
    return [
        row if row["mask"] != PREDICTION else _filled(row, known[row["lesion"]]) for row in rows
    ]


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
