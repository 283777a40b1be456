"""Baseline: find new lesions by a threshold on the smoothed difference between the visits.

Usage: python -m benchmarks.difference --tune ROOT --dataset ROOT --output DIR
Both visits are normalised as for the network, with intensity landmarks of the --tune patients.
They are smoothed and subtracted. A region is a new lesion if its difference exceeds a threshold,
if it is large enough and bright enough at the second visit, and if it is not at the brain's rim.
The four parameters (`Rule`) are those with the best lesion F1 on --tune. Writes
DIR/<patient>.nii.gz, like `predict --dataset`.
"""

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from msseg_jax.configuration.files import find, read
from msseg_jax.data.intensity import fit_landmarks, measure_percentiles, normalise
from msseg_jax.evaluation.scores import compare_lesions
from msseg_jax.system.errors import InputError
from msseg_jax.system.processes import for_each
from msseg_jax.volumes.grids import bounding_box
from msseg_jax.volumes.layout import Patient, find_patients
from msseg_jax.volumes.lesions import number_lesions, voxel_mm3
from msseg_jax.volumes.nifti import write_volume
from msseg_jax.volumes.pair import Pair, read_pair

SMOOTH_MM = (0.7, 1.2, 2.0)  # Gaussian standard deviation
THRESHOLDS = tuple(np.round(np.arange(0.6, 3.01, 0.3), 2).tolist())  # standard deviations
LEAST_MM3 = (3.0, 10.0, 30.0)
LEAST_BRIGHTNESS = (-9.0, 1.0)  # standard deviations above the brain's mean, second visit
RIM_MM = 3.0  # brain this close to the mask's edge is ignored: differences there are artefacts


@dataclass(frozen=True)
class Rule:
    """Conditions under which a difference is a new lesion."""

    smooth_mm: float  # standard deviation of the Gaussian filter
    threshold: float  # of the difference, standard deviations of the brain
    least_mm3: float  # volume of a lesion
    least_brightness: float  # of the second visit, standard deviations of the brain


@dataclass(frozen=True)
class Fitted:
    """Parameters fitted to labelled pairs."""

    landmarks: np.ndarray
    rule: Rule
    f1: float  # lesion F1 over the lesions of all pairs
    pairs: int  # number of pairs


@dataclass(frozen=True)
class Case:
    """The normalised visits of a patient."""

    time01: np.ndarray  # (D, H, W) float32
    time02: np.ndarray
    inside: np.ndarray  # (D, H, W) bool, the brain without its rim
    spacing_mm: np.ndarray


def percentiles_of(pair: Pair) -> list[np.ndarray]:
    """Return the intensities of both visits at the percentiles that the network uses."""
    percentiles = read(find("changes")).data.percentiles
    return [
        measure_percentiles(visit.array, pair.brain, percentiles)
        for visit in (pair.time01, pair.time02)
    ]


def case_of(pair: Pair, landmarks: np.ndarray) -> Case:
    """Normalise the visits of a pair."""
    visits = [
        normalise(visit.array, pair.brain, measured, landmarks)
        for visit, measured in zip((pair.time01, pair.time02), percentiles_of(pair), strict=True)
    ]
    spacing_mm = pair.time01.spacing_mm
    depth_mm = ndimage.distance_transform_edt(np.pad(pair.brain, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    return Case(*visits, depth_mm > RIM_MM, spacing_mm)


def smoothed(case: Case, smooth_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the difference between the visits and the second visit, both smoothed."""
    difference = case.time02 - case.time01
    sigma = smooth_mm / case.spacing_mm
    return tuple(ndimage.gaussian_filter(image, sigma) for image in (difference, case.time02))


def keep(images: tuple[np.ndarray, np.ndarray], case: Case, rule: Rule) -> np.ndarray:
    """Return the mask of new lesions by a rule, (D, H, W) bool.

    Args:
      images: what `smoothed` returns.
    """
    difference, second = images
    mask = (difference > rule.threshold) & (second > rule.least_brightness) & case.inside
    least_voxels = int(np.ceil(rule.least_mm3 / voxel_mm3(case.spacing_mm)))
    return number_lesions(mask, least_voxels)[0] > 0


def find_new(pair: Pair, fitted: Fitted) -> np.ndarray:
    """Return the mask of new lesions of a pair, (D, H, W) bool."""
    case = case_of(pair, fitted.landmarks)
    return keep(smoothed(case, fitted.rule.smooth_mm), case, fitted.rule)


def fit(root: Path, every: int = 1) -> Fitted:
    """Fit the landmarks and the rule to every `every`-th labelled pair of a folder."""
    patients = find_patients(root, targets=1)[::every]
    measured = for_each(lambda patient: percentiles_of(read_pair(patient)), patients, "reading")
    landmarks = fit_landmarks([visit for visits in measured for visit in visits])
    rules = [
        Rule(*four)
        for four in itertools.product(SMOOTH_MM, THRESHOLDS, LEAST_MM3, LEAST_BRIGHTNESS)
    ]

    def count(patient: Patient) -> list[tuple[int, int, int, int]]:
        pair = read_pair(patient)
        case = case_of(pair, landmarks)
        box = bounding_box(pair.brain)
        target = pair.targets[0][box] > 0
        case = Case(case.time01[box], case.time02[box], case.inside[box], case.spacing_mm)
        counts = []
        for smooth_mm, group in itertools.groupby(rules, lambda rule: rule.smooth_mm):
            images = smoothed(case, smooth_mm)
            for rule in group:
                found = compare_lesions(target, keep(images, case, rule), case.spacing_mm)
                both = (found.detected, found.confirmed)
                counts.append(tuple(number for a in both for number in (a.sum(), a.size)))
        return counts

    detected, lesions, confirmed, predicted = np.sum(for_each(count, patients, "tuning"), axis=0).T
    sensitivity, precision = detected / np.maximum(lesions, 1), confirmed / np.maximum(predicted, 1)
    f1 = 2 * sensitivity * precision / np.maximum(sensitivity + precision, 1e-9)
    return Fitted(landmarks, rules[int(f1.argmax())], float(f1.max()), len(patients))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", required=True, type=Path, metavar="ROOT", help="labelled pairs")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="tune on every N-th pair; default: 1"
    )
    parser.add_argument(
        "--dataset", required=True, type=Path, metavar="ROOT", help="pairs to segment"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the masks"
    )
    flags = parser.parse_args()
    fitted = fit(flags.tune, flags.every)
    print(f"{fitted.rule}: lesion F1 {fitted.f1:.3f} on {fitted.pairs} pairs of {flags.tune}")
    flags.output.mkdir(parents=True, exist_ok=True)
    for patient in find_patients(flags.dataset, targets=0):
        pair = read_pair(patient)
        mask = find_new(pair, fitted).astype(np.uint8)
        write_volume(flags.output / f"{patient.name}.nii.gz", mask, pair.time01)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.difference: {error}")
