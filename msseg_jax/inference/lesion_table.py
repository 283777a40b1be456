"""The table of the lesions of a pair: one row per lesion, the same columns everywhere."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from msseg_jax.inference.prediction import Prediction
from msseg_jax.system.atomic import write_beside
from msseg_jax.volumes.lesions import CENTRE
from msseg_jax.volumes.sides import sides_of

COLUMNS = (
    "lesion", "class", "label", "volume_mm3", *CENTRE, "side", "region", "caution",
    "mean_probability", "right", "of",
    "volume01_mm3", "volume02_mm3", "change_mm3",
)  # fmt: skip
COUNTS = ("right", "of")  # columns with whole numbers, which may be missing


def lesion_table(prediction: Prediction) -> pd.DataFrame:
    """Return the table of the lesions: the new ones, then the enlarging, then the vanished ones.

    The columns are those of `NewLesions.rows_by_class`, and

    side: the patient's side;
    region, caution: the region of the brain, and why lesions there are often false. They are ''
      unless the pair was prepared from scans.
    """
    delivered, on_scanner = prediction.delivered, prediction.on_scanner
    pair = prediction.pair
    rows = []
    for name, lesions in delivered.rows_by_class.items():
        if on_scanner is None:
            centres_mm = np.array([[row[k] for k in CENTRE] for row in lesions]).reshape(-1, 3)
        else:
            centres_mm = on_scanner.centres_mm[name]
        sides = sides_of(centres_mm, pair.whole_brain, pair.time01.affine)
        regions = [("", "")] * len(lesions)
        if on_scanner is not None and on_scanner.regions is not None:
            regions = on_scanner.regions[name]
        rows += [
            row | {"side": side, "region": region, "caution": caution}
            for row, side, (region, caution) in zip(lesions, sides, regions, strict=True)
        ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(COUNTS, "Int64"))


def write_lesion_table(path: Path, prediction: Prediction) -> None:
    """Write the table as CSV, with the name of the patient in the first column."""
    table = lesion_table(prediction)
    table.insert(0, "patient", prediction.patient.name)
    # On Linux, a file name may hold bytes that are no text.
    save = partial(table.to_csv, index=False, float_format="%.7g", errors="backslashreplace")
    write_beside(path, save)
