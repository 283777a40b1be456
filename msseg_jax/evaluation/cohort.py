"""Summarise the scores of many patients: tables, means and bootstrap intervals."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from msseg_jax.evaluation.raters import PREDICTION, REFERENCE, WITH, WITHOUT

RESAMPLES = 5000  # number of bootstrap samples
CONFIDENCE = 0.95  # level of the bootstrap intervals

ANY = "patients with any new lesion"
MEASURES_WITH = (
    "Jaccard", "Dice", "Sensitivity", "Specificity", "PPV", "NPV", "RelativeVolumeError",
    "PPVL", "SensL", "F1_score", "Hausdorff95_mm", "SurfaceDistance_mm",
)  # fmt: skip
MEASURES_WITHOUT = ("NbTestedLesions", "VolTestedLesions")


@dataclass(frozen=True)
class Evaluation:
    """All scores of the predictions in a folder."""

    reference: Path  # folder in the MSSEG-2 layout
    prediction: Path  # folder of <patient>.nii.gz
    scores: pd.DataFrame  # one row per patient, reference and rater
    lesions: pd.DataFrame  # one row per lesion of the consensus and of the prediction
    curve: pd.DataFrame  # one row per patient and threshold; empty without probability maps
    summary: pd.DataFrame  # one row per reference, rater, group of patients and measure
    left_out: dict[str, str]  # {patient: reason why it was not scored}
    warnings: dict[str, str] = field(default_factory=dict)  # about files of a patient

    @cached_property
    def of_prediction(self) -> pd.DataFrame:
        """The prediction's scores against the consensus, one row per patient."""
        rows = self.scores
        rows = rows[(rows["reference"] == REFERENCE) & (rows["rater"] == PREDICTION)]
        return rows.reindex(columns=list(dict.fromkeys([*rows.columns, "Dice", "F1_score"])))

    @property
    def patients(self) -> list[str]:
        """The names of the patients that were scored."""
        return list(self.scores["patient"].unique())


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Return means over patients with their bootstrap intervals.

    There is one row per reference, rater, group of patients and measure.

    Patients with and without new lesions in the reference form separate groups. The mean of a
    measure leaves out the patients for which it is not defined. The column `patients` contains the
    number of those that remain.
    """
    rows = []
    for (reference, rater), table in scores.groupby(["reference", "rater"], sort=False):
        for group, measures in ((WITH, MEASURES_WITH), (WITHOUT, MEASURES_WITHOUT)):
            part = table[table["group"] == group]
            for measure in measures:
                if len(part) and measure in part:
                    rows.append((reference, rater, group, measure, *_mean(part[measure])))
        # Per patient: is there any new lesion? Lesions that are too small do not count.
        any_reference = table["reference_lesions"] > 0
        any_rater = (table["rater_lesions"] > 0).astype(float)
        for measure, values in (
            ("Sensitivity", any_rater[any_reference]),
            ("Specificity", 1 - any_rater[~any_reference]),
        ):
            if len(values):
                rows.append((reference, rater, ANY, measure, *_mean(values)))
    columns = ["reference", "rater", "group", "measure", "mean", "low", "high", "patients"]
    return pd.DataFrame(rows, columns=columns)


def _mean(values: pd.Series) -> tuple[float, float, float, int]:
    """Return the mean, the ends of its interval (NaN for one patient), and the number of values."""
    values = values.dropna().to_numpy(float)
    if not values.size:
        return np.nan, np.nan, np.nan, 0
    mean = float(values.mean())
    if values.size == 1:
        return mean, np.nan, np.nan, 1
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
        method="percentile", vectorized=True, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return mean, float(interval.low), float(interval.high), values.size


# ---------------------------------------------------------------------------- as text


def summary_tables(evaluation: Evaluation) -> list[tuple[str, list[str], list]]:
    """Return the means against the consensus as text.

    Returns:
      For each group of patients: its title, the raters, and (measure, [(mean, interval) of each
      rater]) for each measure.
    """
    summary = evaluation.summary[evaluation.summary["reference"] == REFERENCE]
    raters = list(summary["rater"].unique())
    tables = []
    for group in (WITH, WITHOUT, ANY):
        part = summary[summary["group"] == group]
        if part.empty:
            continue
        everyone = int(part["patients"].max())
        title = f"{everyone} patient{'' if everyone == 1 else 's'} {group}"
        table = []
        for measure, rows in part.groupby("measure", sort=False):
            if group == ANY:  # sensitivity and specificity count different patients
                title, everyone = group, int(rows["patients"].max())
            by_rater = {
                row["rater"]: mean_and_interval(row, everyone) for _, row in rows.iterrows()
            }
            table.append((measure, [by_rater.get(rater, ("-", "")) for rater in raters]))
        tables.append((title, raters, table))
    return tables


def mean_and_interval(row: pd.Series, everyone: int) -> tuple[str, str]:
    """Return a mean and its interval as text: '0.512' and '0.401 to 0.623'.

    An undefined mean gives '-', and an undefined interval or one without width gives ''. If the
    measure is defined for fewer than `everyone` patients, their number follows the mean: '0.512
    (7)'.
    """
    if math.isnan(row["mean"]):
        return "-", ""
    low, high = f"{row['low']:.3f}", f"{row['high']:.3f}"
    interval = "" if math.isnan(row["low"]) or low == high else f"{low} to {high}"
    count = "" if row["patients"] == everyone else f" ({row['patients']:.0f})"
    return f"{row['mean']:.3f}{count}", interval


def format_number(value: float, digits: int) -> str:
    """Return a number as text, such as '0.512', or '-' for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
