"""Draw two plots of the cohort, as pictures for the page."""

import base64
import io

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msseg_jax.evaluation.raters import PREDICTION, REFERENCE
from msseg_jax.system.words import count_of

# Colours of Okabe and Ito, which colour-blind people can distinguish. The style sheet uses the
# same palette. These are its darker colours, for a white background. Both use orange for the
# prediction.
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"


def volume_scatter(scores: pd.DataFrame) -> str:
    """Plot predicted against reference volumes of new lesions, one point per row of `scores`."""
    reference, predicted = scores["reference_mm3"] / 1000, scores["rater_mm3"] / 1000
    figure, axes = _figure()
    least = 0.01  # ml; the axes are linear below it, to include 0
    most = 1.5 * max(reference.max(), predicted.max(), 10 * least)
    axes.plot([0, most], [0, most], color=GREY, linewidth=1, label="equal")
    axes.scatter(reference, predicted, s=26, color=ORANGE, edgecolor="black", linewidth=0.5)
    axes.set_xscale("symlog", linthresh=least)
    axes.set_yscale("symlog", linthresh=least)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set(
        xlim=(-0.2 * least, most), ylim=(-0.2 * least, most), aspect="equal",
        xlabel="reference, ml", ylabel="prediction, ml", title="Volume of new lesions",
    )  # fmt: skip
    axes.legend(loc="upper left", frameon=False)
    return _svg(figure)


def threshold_curve(curve: pd.DataFrame, scores: pd.DataFrame) -> str:
    """Plot the detected share of the lesions against false lesions per patient, over thresholds.

    Args:
      curve: rows of the patients that have a probability map. At least one of these patients must
        have a reference lesion.
      scores: `Evaluation.scores`, of all patients.
    """
    figure, axes = _figure()
    totals = curve.groupby("threshold")[["detected", "missed", "false"]].sum()
    patients, everyone = curve["patient"].nunique(), scores["patient"].nunique()
    sensitivity = totals["detected"] / (totals["detected"] + totals["missed"])
    false = totals["false"] / patients
    axes.plot(false, sensitivity, "o-", color=ORANGE, markersize=3.5, label="probability map")
    for threshold in (0.1, 0.5, 0.9):
        at = np.abs(totals.index - threshold).argmin()
        axes.annotate(
            f"> {threshold}", (false.iloc[at], sensitivity.iloc[at]), (6, -10),
            textcoords="offset points", color=ORANGE,
        )  # fmt: skip
    against = scores[(scores["reference"] == REFERENCE) & scores["patient"].isin(curve["patient"])]
    experts = [rater for rater in against["rater"].unique() if rater != PREDICTION]
    for rater, rows in against.groupby("rater", sort=False):
        found = rows["detected"].sum() / rows["reference_lesions"].sum()
        wrong = (rows["rater_lesions"] - rows["confirmed"]).sum() / len(rows)
        ours = rater == PREDICTION
        label = None if rater in experts[1:] else "predicted mask" if ours else "experts"
        axes.plot(
            wrong, found, "D" if ours else "s", color=ORANGE if ours else BLUE,
            markeredgecolor="black", markersize=8 if ours else 6,
            clip_on=False, label=label,
        )  # fmt: skip
    axes.set(
        ylim=(0, 1.03), xlabel="false lesions per patient", ylabel="new lesions detected",
        title=f"Sensitivity against false lesions\n{patients} of {count_of(everyone, 'patient')}",
    )  # fmt: skip
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _svg(figure)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")  # inches
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Return a figure as a data URI, so that ids within one picture cannot clash with another's."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "msseg_jax"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
