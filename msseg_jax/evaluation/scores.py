"""How well a mask of new lesions agrees with a reference mask: the measures of MSSEG-2.

They follow animaSegPerfAnalyzer (Anima, https://anima.irisa.fr), the program that scored the
challenge: the same lesions, the same rule of detection, the same names.
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
from msseg_jax.volumes.masks import mask_problem

LEAST_MM3 = 3.0  # a lesion must be larger than this
COVERED_SHARE = 0.10  # more than this share of a detected lesion is covered by the other mask
EXPLAINED_SHARE = 0.65  # of that cover; the lesions that make it up are looked at
OUTSIDE_SHARE = 0.70  # none of them lies outside the other mask's lesions by more than this share

Spacing = tuple[float, float, float]  # voxel sides in mm


@dataclass(frozen=True)
class Agreement:
    """The lesions of two masks, and which of them the other mask confirms."""

    reference: np.ndarray  # (D, H, W) int, 0 or the number of a lesion from 1
    prediction: np.ndarray  # (D, H, W) int
    detected: np.ndarray  # (R,) bool, of each reference lesion
    confirmed: np.ndarray  # (P,) bool, of each predicted lesion

    @property
    def sensitivity(self) -> float:
        """Detected share of the reference lesions; NaN where there is none."""
        return float(self.detected.mean()) if self.detected.size else math.nan

    @property
    def precision(self) -> float:
        """Confirmed share of the predicted lesions; 0 where there is none."""
        return float(self.confirmed.mean()) if self.confirmed.size else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision; 0 where it is not defined."""
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
    """Return the measures of one pair of masks, under the scoring program's names.

    Args:
      reference, prediction: (D, H, W), bool or 0 and 1.
      spacing_mm: voxel sides, taken in single precision, which is what NIfTI headers hold and the
        program reads.
      agreement: of these masks, or of a box that holds both, where it is at hand.

    Returns:
      Jaccard, Dice, Sensitivity, Specificity, PPV, NPV: of voxels, NaN where not defined.
      RelativeVolumeError: (predicted - reference) / reference volume, per cent.
      PPVL, SensL, F1_score: of lesions, as `Agreement` defines them.
      With an empty reference only NbTestedLesions and VolTestedLesions (mm3), of the prediction.

    Raises:
      InputError: masks of different shapes, or with other values than 0 and 1.
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
    """Return 2 |R and P| / (|R| + |P|) of two bool masks; NaN if both are empty."""
    total = int(np.count_nonzero(reference) + np.count_nonzero(prediction))
    return _ratio(2 * int(np.count_nonzero(reference & prediction)), total)


def find_lesions(mask: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, int]:
    """Return the lesions of a bool mask (D, H, W) that count: those of more than LEAST_MM3.

    Returns:
      As `number_lesions`.
    """
    return number_lesions(mask, math.floor(LEAST_MM3 / voxel_mm3(spacing_mm)) + 1)


def compare_lesions(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing
) -> Agreement:
    """Find which lesions of two bool masks (D, H, W) agree, by the challenge's rule.

    A reference lesion is detected if more than COVERED_SHARE of it is covered by predicted
    lesions, and those that make up EXPLAINED_SHARE of the cover, the largest overlap first, are
    each outside all reference lesions by no more than OUTSIDE_SHARE. A predicted lesion is
    confirmed by the same rule with the roles exchanged.

    Two ways of the program (`falsePositiveRatioTester` in Anima's source) are kept, as its figures
    are what others publish: it looks at no more lesions than there are reference lesions, and one;
    and it adds up shares, not voxels, so that 0.65 may be missed by a rounding error.
    """
    references, reference_count = find_lesions(reference, spacing_mm)
    predictions, prediction_count = find_lesions(prediction, spacing_mm)
    # overlap[i, j]: voxels of reference lesion i in predicted lesion j; 0 is what is no lesion.
    overlap = np.zeros((reference_count + 1, prediction_count + 1), dtype=np.int64)
    some = np.nonzero(references | predictions)
    np.add.at(overlap, (references[some], predictions[some]), 1)
    return Agreement(references, predictions, _accepted(overlap), _accepted(overlap.T))


def count_lesions(agreement: Agreement) -> dict[str, int]:
    """Count the reference lesions detected and missed, and the predicted ones not confirmed."""
    detected = int(agreement.detected.sum())
    return {
        "detected": detected,
        "missed": agreement.detected.size - detected,
        "false": int((~agreement.confirmed).sum()),
    }


def _accepted(overlap: np.ndarray) -> np.ndarray:
    """Find which lesions 1, 2 ... of the first axis are accepted by those of the second."""
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
        looked_at = order[before < EXPLAINED_SHARE]
        accepted[lesion - 1] = not (outside[1:][looked_at] > OUTSIDE_SHARE).any()
    return accepted


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing
) -> dict[str, float]:
    """Measure distances between the surfaces of two bool masks (D, H, W); NaN if one is empty.

    Returns:
      In mm:
      Hausdorff95: the larger of the two directed distances that 95 % of a surface's area lies
        within.
      SurfaceDistance: the mean of the two directed mean distances, each over a surface's area.
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
                f"{name} has shape {mask.shape}; expected (D, H, W), the same for both masks"
            )
        if mask.dtype != bool:
            if problem := mask_problem(name, mask):
                raise InputError(problem)
            mask = mask != 0
        checked.append(mask)
    return checked


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
