"""The scores of many patients, as tables.

A *rater* is whoever drew a mask: the prediction, the consensus or an expert. Each is scored
against the consensus and against each expert: the experts among themselves are the yardstick for
the prediction.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from msseg_jax.data.dataset import CONSENSUS, EXPERT
from msseg_jax.data.volumes import (
    Volume,
    VolumeError,
    bounding_box,
    check_finite,
    grid_difference,
    mask_problem,
    read_volume,
)
from msseg_jax.lesions import describe_lesions, voxel_mm3
from msseg_jax.scores import (
    challenge_scores,
    compare_lesions,
    count_lesions,
    surface_distances,
)

REFERENCE = "consensus"
PREDICTION = "prediction"
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))  # of the curve over probabilities
RESAMPLES = 5000  # of the bootstrap
CONFIDENCE = 0.95

WITH = "with new lesions"  # by the reference at hand
WITHOUT = "without new lesions"
ANY = "patients with any new lesion"
MEASURES_WITH = (
    "Jaccard", "Dice", "Sensitivity", "Specificity", "PPV", "NPV", "RelativeVolumeError",
    "PPVL", "SensL", "F1_score", "Hausdorff95_mm", "SurfaceDistance_mm",
)  # fmt: skip
MEASURES_WITHOUT = ("NbTestedLesions", "VolTestedLesions")


@dataclass(frozen=True)
class Masks:
    """The masks of one patient, on one grid."""

    raters: dict[str, np.ndarray]  # name to (D, H, W) bool; the consensus is among them
    consensus: Volume  # its file, whose grid is that of all
    probability: np.ndarray | None  # (D, H, W) float32

    @property
    def affine(self) -> np.ndarray:
        return self.consensus.affine

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """As the header states it, which is what the challenge's program reads."""
        return tuple(float(side) for side in self.consensus.header.get_zooms()[:3])


def read_masks(folder: Path, prediction: Path, probability: Path | None = None) -> Masks:
    """The reference maps of a patient's folder, its prediction, and its probability map if any.

    Raises:
      VolumeError: with every file that is missing, damaged, no binary mask, or on another grid.
    """
    # The experts that are there, in their order; the consensus must be.
    experts = {
        path.name.removeprefix("ground_truth_").removesuffix(".nii.gz"): path
        for path in sorted(folder.glob(EXPERT.format("*")))
    }
    paths = {REFERENCE: folder / CONSENSUS, PREDICTION: prediction, **experts}
    problems: list[str] = []
    volumes = {name: _read(path, problems) for name, path in paths.items()}
    likelihood = None
    if probability is not None:
        likelihood = _read(probability, problems, binary=False)
    first = volumes[REFERENCE]
    for other in [*volumes.values(), likelihood]:
        if first and other and (difference := grid_difference(first, other)):
            problems.append(difference)
    if problems:
        raise VolumeError("\n".join(problems))
    raters = {name: volume.array != 0 for name, volume in volumes.items()}
    return Masks(
        raters,
        replace(first, array=raters[REFERENCE]),
        None if likelihood is None else likelihood.array,
    )


def _read(path: Path, problems: list[str], binary: bool = True) -> Volume | None:
    try:
        volume = read_volume(path)
        check_finite(volume)
    except VolumeError as error:
        problems.append(str(error))
        return None
    if binary:
        problem = mask_problem(volume)
    else:
        low, high = float(volume.array.min()), float(volume.array.max())
        problem = None
        if low < 0 or high > 1:
            problem = (
                f"{path}: its values are from {low:g} to {high:g}; wanted probabilities, 0 to 1"
            )
    if problem:
        problems.append(problem)
    return volume


# ---------------------------------------------------------------------------- one patient


def score_raters(masks: Masks) -> list[dict]:
    """A row for the prediction and each expert against the consensus and each other expert."""
    references = [name for name in masks.raters if name != PREDICTION]
    raters = [name for name in masks.raters if name != REFERENCE]
    distances = {}  # they are the same both ways, and cost most
    rows = []
    for rater in raters:
        for reference in references:
            if rater == reference:
                continue
            pair = masks.raters[reference], masks.raters[rater]
            names = frozenset((reference, rater))
            if names not in distances:
                box = bounding_box(pair[0] | pair[1])
                distances[names] = surface_distances(pair[0][box], pair[1][box], masks.spacing_mm)
            rows.append(
                {"reference": reference, "rater": rater}
                | _scores(*pair, masks.spacing_mm)
                | {f"{name}_mm": value for name, value in distances[names].items()}
            )
    return rows


def _scores(reference: np.ndarray, rater: np.ndarray, spacing_mm: np.ndarray) -> dict:
    box = bounding_box(reference | rater)
    agreement = compare_lesions(reference[box], rater[box], spacing_mm)
    scores = challenge_scores(reference, rater, spacing_mm, agreement)
    volume_mm3 = voxel_mm3(spacing_mm)
    return {
        "group": WITH if reference.any() else WITHOUT,
        **scores,
        "reference_mm3": np.count_nonzero(reference) * volume_mm3,
        "rater_mm3": np.count_nonzero(rater) * volume_mm3,
        "reference_lesions": agreement.detected.size,
        "rater_lesions": agreement.confirmed.size,
        "detected": int(agreement.detected.sum()),
        "confirmed": int(agreement.confirmed.sum()),
    }


def list_lesions(masks: Masks) -> list[dict]:
    """A row per lesion of the consensus and of the prediction, the largest first."""
    reference, prediction = masks.raters[REFERENCE], masks.raters[PREDICTION]
    agreement = compare_lesions(reference, prediction, masks.spacing_mm)
    return [
        {"mask": name, **row, "agrees": bool(agrees)}
        for name, labels, flags in (
            ("reference", agreement.reference, agreement.detected),
            (PREDICTION, agreement.prediction, agreement.confirmed),
        )
        for row, agrees in zip(
            describe_lesions(labels, masks.affine, masks.spacing_mm, masks.probability),
            flags,
            strict=True,
        )
    ]


def count_over_thresholds(masks: Masks) -> list[dict]:
    """For each threshold of the probability map: lesions detected, and false ones."""
    reference, probability = masks.raters[REFERENCE], masks.probability
    if probability is None:
        return []
    box = bounding_box(reference | (probability > THRESHOLDS[0]))
    reference, probability = reference[box], probability[box]
    rows = []
    for threshold in THRESHOLDS:
        agreement = compare_lesions(reference, probability > threshold, masks.spacing_mm)
        rows.append({"threshold": threshold, **count_lesions(agreement)})
    return rows


# ---------------------------------------------------------------------------- all patients


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over patients with their bootstrap intervals: a row per reference, rater and measure.

    The patients with and without new lesions (by the reference) are kept apart. A patient where a
    measure is not defined is left out of its mean; `patients` says how many remain.
    """
    rows = []
    for (reference, rater), table in scores.groupby(["reference", "rater"], sort=False):
        for group, measures in ((WITH, MEASURES_WITH), (WITHOUT, MEASURES_WITHOUT)):
            part = table[table["group"] == group]
            for measure in measures:
                if len(part) and measure in part:
                    rows.append((reference, rater, group, measure, *_mean(part[measure])))
        # Of patients: is anything new at all? By the lesions that are kept.
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
    """Mean, ends of its interval (percentile bootstrap; NaN for one patient), number."""
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
