"""Score the masks of one patient against each other.

A *rater* is the source of a mask: the prediction, the consensus or an expert. Each rater is scored
against the consensus and against each expert. The scores of the experts against each other show
how well raters agree, for comparison with the prediction.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msseg_jax.evaluation.scores import (
    Spacing,
    challenge_scores,
    compare_lesions,
    count_lesions,
    surface_distances,
)
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import bounding_box
from msseg_jax.volumes.layout import CONSENSUS, EXPERT
from msseg_jax.volumes.lesions import describe_lesions, voxel_mm3
from msseg_jax.volumes.masks import ROUNDING, is_inside, mask_problem
from msseg_jax.volumes.nifti import read_checked
from msseg_jax.volumes.volume import Volume

REFERENCE = "consensus"
PREDICTION = "prediction"
# Of the probability map, for the curve of detected and false lesions.
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))

WITH = "with new lesions"  # in the reference of the comparison
WITHOUT = "without new lesions"


@dataclass(frozen=True)
class Masks:
    """The masks of one patient, on one grid."""

    raters: dict[str, np.ndarray]  # {name: (D, H, W) bool}, with the consensus
    consensus: Volume  # as in its file; all masks are on its grid
    probability: np.ndarray | None  # (D, H, W) float32

    @property
    def affine(self) -> np.ndarray:
        """Affine of the grid: (4, 4), voxel indices to scanner mm."""
        return self.consensus.affine

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel sides of the grid."""
        return spacing_of(self.consensus)


def spacing_of(volume: Volume) -> Spacing:
    """Return the voxel sides that the header stores. The challenge's program uses them, too."""
    depth, height, width = volume.header.get_zooms()[:3]
    return float(depth), float(height), float(width)


def read_masks(
    folder: Path, prediction: Path, probability: Path | None = None, experts: bool = True
) -> Masks:
    """Read a patient's reference maps, its prediction, and its probability map if there is one.

    Args:
      experts: whether to read the maps of the experts, if there are any, and not only the
        consensus.

    Raises:
      InputError: a file is missing, damaged, not a binary mask, or on another grid. The message
        lists all such files.
    """
    paths = {REFERENCE: folder / CONSENSUS, PREDICTION: prediction}
    for path in sorted(folder.glob(EXPERT.format("*"))) if experts else []:
        paths[path.name.removeprefix("ground_truth_").removesuffix(".nii.gz")] = path
    problems: list[str] = []
    consensus: Volume | None = None
    raters: dict[str, np.ndarray] = {}
    for name, path in paths.items():
        volume = read_checked(path, consensus, problems)
        if name == REFERENCE:
            consensus = volume
        if volume is None:
            continue
        if problem := mask_problem(path, volume.array):
            problems.append(problem)
        raters[name] = is_inside(volume.array)
    likelihood = None
    if probability is not None:
        likelihood = read_checked(probability, consensus, problems)
        if likelihood and (problem := _probability_problem(likelihood)):
            problems.append(problem)
    if consensus is None or problems:
        raise InputError("\n".join(problems))
    return Masks(
        raters,
        replace(consensus, array=raters[REFERENCE]),
        None if likelihood is None else np.clip(likelihood.array, 0, 1),
    )


def _probability_problem(volume: Volume) -> str | None:
    low, high = float(volume.array.min()), float(volume.array.max())
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return None
    return (
        f"{volume.path}: its values are from {low:g} to {high:g}. Expected probabilities, from 0 "
        "to 1."
    )


def score_raters(masks: Masks) -> list[dict]:
    """Score the prediction and each expert against the consensus and against each other expert.

    Returns:
      One row per rater and reference.
    """
    references = [name for name in masks.raters if name != PREDICTION]
    raters = [name for name in masks.raters if name != REFERENCE]
    distances: dict[frozenset[str], dict[str, float]] = {}  # symmetric, and slow to compute
    rows = []
    for rater in raters:
        for reference in references:
            if rater == reference:
                continue
            pair = masks.raters[reference], masks.raters[rater]
            names = frozenset((reference, rater))
            if names not in distances:
                distances[names] = _distances(*pair, masks.spacing_mm)
            scores = _scores(*pair, masks.spacing_mm)
            rows.append({"reference": reference, "rater": rater} | scores | distances[names])
    return rows


def score_pair(reference: np.ndarray, rater: np.ndarray, spacing_mm: Spacing) -> dict:
    """Return the scores of one bool mask (D, H, W) against another, named as by `score_raters`."""
    return _scores(reference, rater, spacing_mm) | _distances(reference, rater, spacing_mm)


def _distances(reference: np.ndarray, rater: np.ndarray, spacing_mm: Spacing) -> dict[str, float]:
    box = bounding_box(reference | rater)
    distances = surface_distances(reference[box], rater[box], spacing_mm)
    return {f"{name}_mm": value for name, value in distances.items()}


def _scores(reference: np.ndarray, rater: np.ndarray, spacing_mm: Spacing) -> dict:
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
    """Return one row per lesion of the consensus and of the prediction, the largest first."""
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
    """Count the detected, missed and false lesions for each threshold of the probability map.

    Returns:
      One row per threshold; none without a probability map.
    """
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
