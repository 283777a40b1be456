"""The masks of one patient, and how well they agree.

A *rater* is whoever drew a mask: the prediction, the consensus or an expert. Each is scored
against the consensus and against each expert: the experts among themselves are the yardstick for
the prediction.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msseg_jax.evaluation.scores import (
    challenge_scores,
    compare_lesions,
    count_lesions,
    surface_distances,
)
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import bounding_box
from msseg_jax.volumes.layout import CONSENSUS, EXPERT
from msseg_jax.volumes.lesions import describe_lesions, voxel_mm3
from msseg_jax.volumes.masks import mask_problem
from msseg_jax.volumes.nifti import read_checked
from msseg_jax.volumes.volume import Volume

REFERENCE = "consensus"
PREDICTION = "prediction"
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))  # of the curve over probabilities

WITH = "with new lesions"  # by the reference at hand
WITHOUT = "without new lesions"


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


def read_masks(
    folder: Path, prediction: Path, probability: Path | None = None, experts: bool = True
) -> Masks:
    """The reference maps of a patient's folder, its prediction, and its probability map if any.

    Args:
      experts: whether to read the experts' maps that there are, beside the consensus.

    Raises:
      InputError: with every file that is missing, damaged, no binary mask, or on another grid.
    """
    paths = {REFERENCE: folder / CONSENSUS, PREDICTION: prediction}
    for path in sorted(folder.glob(EXPERT.format("*"))) if experts else []:
        paths[path.name.removeprefix("ground_truth_").removesuffix(".nii.gz")] = path
    problems: list[str] = []
    volumes: dict[str, Volume | None] = {}
    for name, path in paths.items():
        volume = read_checked(path, volumes.get(REFERENCE), problems)
        if volume and (problem := mask_problem(path, volume.array)):
            problems.append(problem)
        volumes[name] = volume
    likelihood = None
    if probability is not None:
        likelihood = read_checked(probability, volumes[REFERENCE], problems)
        if likelihood and (problem := _probability_problem(likelihood)):
            problems.append(problem)
    if problems:
        raise InputError("\n".join(problems))
    raters = {name: volume.array != 0 for name, volume in volumes.items()}
    return Masks(
        raters,
        replace(volumes[REFERENCE], array=raters[REFERENCE]),
        None if likelihood is None else likelihood.array,
    )


def _probability_problem(volume: Volume) -> str | None:
    low, high = float(volume.array.min()), float(volume.array.max())
    if low >= 0 and high <= 1:
        return None
    return f"{volume.path}: its values are from {low:g} to {high:g}; wanted probabilities, 0 to 1"


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
