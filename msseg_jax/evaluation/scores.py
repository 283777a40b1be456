"""Compute the measures of MSSEG-2: how well a mask of new lesions agrees with a reference mask.

They follow animaSegPerfAnalyzer (Anima, https://anima.irisa.fr), the program that scored the
challenge. Lesions, the rule of detection and the names of the measures are the same.
"""

import math
from dataclasses import dataclass

import numpy as np
from surface_distance import (
    compute_average_surface_distance,
    compute_robust_hausdorff,
    compute_surface_distances,
)

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import bounding_box
from msseg_jax.volumes.lesions import number_lesions, voxel_mm3
from msseg_jax.volumes.masks import is_inside, mask_problem

# For the last three, see `compare_lesions`.
LEAST_MM3 = 3.0  # a lesion must be larger than this
COVERED_SHARE = 0.10  # a lesion is detected only if more than this share of it is covered
EXPLAINED_SHARE = 0.65  # lesions that make up this share of the covered part are examined
OUTSIDE_SHARE = 0.70  # upper bound for the share of an examined lesion outside the other mask

Spacing = tuple[float, float, float]  # voxel sides in mm


@dataclass(frozen=True)
class Agreement:
    """The lesions of two masks, and which of them agree with the other mask."""

    reference: np.ndarray  # (D, H, W) int, the number of a lesion (from 1), or 0
    prediction: np.ndarray  # (D, H, W) int, the same for the predicted lesions
    detected: np.ndarray  # (R,) bool, for each reference lesion
    confirmed: np.ndarray  # (P,) bool, for each predicted lesion

    @property
    def sensitivity(self) -> float:
        """Share of the reference lesions that are detected; NaN if there are none."""
        return float(self.detected.mean()) if self.detected.size else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are confirmed; 0 if there are none."""
        return float(self.confirmed.mean()) if self.confirmed.size else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision; 0 if it is not defined."""
        sensitivity, precision = self.sensitivity, self.precision
        if not sensitivity + precision > 0:  # NaN included
            return 0.0
        return 2 * sensitivity * precision / (sensitivity + precision)


def challenge_scores(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Spacing,
    agreement: Agreement | None = None,
) -> dict[str, float]:
    """Compute the measures of one pair of masks, with the names of the challenge's program.

    Args:
      reference, prediction: (D, H, W), bool or 0 and 1.
      spacing_mm: voxel sides. They are used in single precision, because the program reads them
        from NIfTI headers, which store them so.
      agreement: the agreement of these masks, or of a box that contains all their voxels, if it
        is already known.

    Returns:
      Jaccard, Dice, Sensitivity, Specificity, PPV, NPV: of voxels, NaN if not defined.
      RelativeVolumeError: (predicted - reference) / reference volume, in per cent.
      PPVL, SensL, F1_score: of lesions, as `Agreement` defines them.
      If the reference is empty, there are only NbTestedLesions and VolTestedLesions (mm3), the
      number and the volume of the predicted lesions.

    Raises:
      InputError: the masks have different shapes, or values other than 0 and 1.
    """
    reference, prediction = _checked(reference, prediction)
    volume_mm3 = voxel_mm3(spacing_mm)
    if not reference.any():
        lesions, count = find_lesions(prediction, spacing_mm)
        return {
            "NbTestedLesions": float(count),
            "VolTestedLesions": np.count_nonzero(lesions) * volume_mm3,
        }
    both = int(np.count_nonzero(reference & prediction))
    positive, predicted = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    neither = reference.size - positive - predicted + both
    if agreement is None:
        box = bounding_box(reference | prediction)
        agreement = compare_lesions(reference[box], prediction[box], spacing_mm)
    return {
        "Jaccard": both / (positive + predicted - both),
        "Dice": 2 * both / (positive + predicted),
        "Sensitivity": both / positive,
        "Specificity": _ratio(neither, reference.size - positive),
        "PPV": _ratio(both, predicted),
        "NPV": _ratio(neither, reference.size - predicted),
        "RelativeVolumeError": 100 * (predicted - positive) / positive,
        "PPVL": agreement.precision,
        "SensL": agreement.sensitivity,
        "F1_score": agreement.f1,
    }


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Return 2 |R and P| / (|R| + |P|) for two bool masks; NaN if both are empty."""
    total = int(np.count_nonzero(reference) + np.count_nonzero(prediction))
    return _ratio(2 * int(np.count_nonzero(reference & prediction)), total)


def find_lesions(mask: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, int]:
    """Find and number the lesions of a bool mask (D, H, W) that are larger than LEAST_MM3.

    Returns:
      The same as `number_lesions`.
    """
    return number_lesions(mask, math.floor(LEAST_MM3 / voxel_mm3(spacing_mm)) + 1)


def compare_lesions(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing
) -> Agreement:
    """Find which lesions of two bool masks (D, H, W) agree, by the challenge's rule.

    A reference lesion is detected if two conditions hold. First, predicted lesions cover more than
    COVERED_SHARE of it. Second, none of the examined predicted lesions lies outside all reference
    lesions with more than OUTSIDE_SHARE of its volume. The examined lesions are those that make up
    EXPLAINED_SHARE of the covered part, taken in the order of their overlaps, the largest first. A
    predicted lesion is confirmed by the same rule with the roles exchanged.

    Two details of the program (`falsePositiveRatioTester` in Anima's source) are kept, because
    published scores were computed with it. It examines at most n + 1 lesions, where n is the
    number of lesions in the mask that is tested. And it adds up shares instead of voxels, so a
    rounding error may make a sum of exactly 0.65 too small.
    """
    references, reference_count = find_lesions(reference, spacing_mm)
    predictions, prediction_count = find_lesions(prediction, spacing_mm)
    # overlap[i, j]: voxels of reference lesion i in predicted lesion j; index 0 is the background.
    overlap = np.zeros((reference_count + 1, prediction_count + 1), dtype=np.int64)
    some = np.nonzero(references | predictions)
    np.add.at(overlap, (references[some], predictions[some]), 1)
    return Agreement(references, predictions, _accepted(overlap), _accepted(overlap.T))


def count_lesions(agreement: Agreement) -> dict[str, int]:
    """Count the detected and missed reference lesions, and the predicted ones not confirmed."""
    detected = int(agreement.detected.sum())
    return {
        "detected": detected,
        "missed": agreement.detected.size - detected,
        "false": int((~agreement.confirmed).sum()),
    }


def _accepted(overlap: np.ndarray) -> np.ndarray:
    """Find which lesions of the first axis are detected, by the rule of `compare_lesions`.

    Args:
      overlap: (lesions + 1, other lesions + 1) voxels; index 0 is the background.

    Returns:
      (lesions,) bool.
    """
    sizes = overlap.sum(axis=1)
    other_sizes = overlap.sum(axis=0)
    outside = overlap[0] / np.maximum(other_sizes, 1)  # share of each other lesion
    accepted = np.zeros(len(overlap) - 1, dtype=bool)
    for lesion in range(1, len(overlap)):
        shared = overlap[lesion, 1:]
        cover = shared.sum()
        if not cover / sizes[lesion] > COVERED_SHARE:
            continue
        order = np.argsort(-shared, kind="stable")[: len(overlap)]
        before = np.concatenate([[0.0], np.cumsum(shared[order] / cover)[:-1]])
        examined = order[before < EXPLAINED_SHARE]
        accepted[lesion - 1] = not (outside[1:][examined] > OUTSIDE_SHARE).any()
    return accepted


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing
) -> dict[str, float]:
    """Measure distances between the surfaces of two bool masks (D, H, W); NaN if one is empty.

    Returns:
      Distances in mm:
      Hausdorff95: the larger of the two directed 95th percentiles. 95 % of the area of one surface
        is no further than this from the other surface.
      SurfaceDistance: the mean of the two directed mean distances, each over the area of a
        surface.
    """
    if not (reference.any() and prediction.any()):
        return {"Hausdorff95": math.nan, "SurfaceDistance": math.nan}
    distances = compute_surface_distances(reference, prediction, [float(s) for s in spacing_mm])
    return {
        "Hausdorff95": float(compute_robust_hausdorff(distances, 95)),
        "SurfaceDistance": float(np.mean(compute_average_surface_distance(distances))),
    }


def _checked(*masks: np.ndarray) -> list[np.ndarray]:
    checked = []
    for name, mask in zip(("reference", "prediction"), masks, strict=True):
        mask = np.asarray(mask)
        if mask.ndim != 3 or mask.shape != np.shape(masks[0]):
            raise InputError(
                f"{name} has shape {mask.shape}. Expected (D, H, W), the same for both masks."
            )
        if mask.dtype != bool:
            if problem := mask_problem(name, mask):
                raise InputError(problem)
            mask = is_inside(mask)
        checked.append(mask)
    return checked


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
