"""The table of the lesions of a pair: one row per lesion, the same columns everywhere."""

from pathlib import Path

import numpy as np
import pandas as pd

from msseg_jax.inference.prediction import Prediction
from msseg_jax.system.tables import write_table
from msseg_jax.volumes.lesions import CENTRE
from msseg_jax.volumes.sides import sides_of

COLUMNS = (
    "lesion", "class", "label", "volume_mm3", *CENTRE, "slice", "side", "region", "caution",
    "mean_probability", "right", "of",
    "volume01_mm3", "volume02_mm3", "change_mm3",
)  # fmt: skip
NUMBERS = "%.7g"  # format of the numbers
COUNTS = ("right", "of")  # columns with whole numbers, which may be missing


def lesion_table(prediction: Prediction) -> pd.DataFrame:
    """Return the table of the lesions: the new ones, then the enlarging, then the vanished ones."""
    rows = [row for rows in lesion_rows(prediction).values() for row in rows]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))


def lesion_rows(prediction: Prediction) -> dict[str, list[dict]]:
    """Return a row for each lesion, by the name of its class.

    The fields are those of `NewLesions.rows_by_class`, and

    slice: the slice that shows most of the lesion: its number in the DICOM series of the second
      scan, or else its place along the last axis of the file, from 1;
    side: the patient's side;
    region, caution: the region of the brain, and why lesions there are often false. They are ''
      unless the pair was prepared from scans.
    """
    delivered, on_scanner = prediction.delivered, prediction.on_scanner
    pair = prediction.pair
    slices = _slices_of(delivered.numbered, () if on_scanner is None else on_scanner.slice_numbers)
    found = {}
    for name, rows in delivered.rows_by_class.items():
        if on_scanner is None:
            centres_mm = np.array([[row[k] for k in CENTRE] for row in rows]).reshape(-1, 3)
        else:
            centres_mm = on_scanner.centres_mm[name]
        sides = sides_of(centres_mm, pair.whole_brain, pair.time01.affine)
        regions = [("", "")] * len(rows)
        if on_scanner is not None and on_scanner.regions is not None:
            regions = on_scanner.regions[name]
        found[name] = [
            row
            | {"slice": slices[row["label"]], "side": side, "region": region, "caution": caution}
            for row, side, (region, caution) in zip(rows, sides, regions, strict=True)
        ]
    return found


def _slices_of(numbered: np.ndarray, numbers: tuple[int, ...]) -> dict[int, int]:
    """Return for each lesion the number of the slice that shows most of it.

    Args:
      numbered: (D, H, W) int, the lesions by their label.
      numbers: numbers of the slices along the last axis; if empty, they are counted from 1.
    """
    places = np.nonzero(numbered)
    labels = numbered[places]
    areas = np.zeros((int(labels.max(initial=0)) + 1, numbered.shape[2]), int)
    np.add.at(areas, (labels, places[2]), 1)
    best = areas.argmax(axis=1)
    return {
        label: numbers[best[label]] if numbers else int(best[label]) + 1
        for label in range(1, len(areas))
    }


def write_lesion_table(path: Path, prediction: Prediction, patient: str) -> None:
    """Write the table as CSV, with the name of the patient in the first column."""
    table = lesion_table(prediction)
    table.insert(0, "patient", patient)
    write_table(path, table, float_format=NUMBERS)
