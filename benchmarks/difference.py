"""The simplest rival: the smoothed difference of the visits, above a threshold.

Usage: python -m benchmarks.difference --tune ROOT --dataset ROOT --output DIR
Both visits are normalised as for the network (its landmarks are those of --tune), smoothed, and
subtracted; what is brighter at the second visit by more than a threshold is a new lesion, if it is
large enough, bright enough, and inside the brain's rim. The four numbers are those with the best
mean lesion F1 of --tune. Writes DIR/<patient>.nii.gz, as `predict --dataset` does.
"""

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from configs.open_ms import get_config
from msseg_jax.data.dataset import Patient, find_patients, read_pair
from msseg_jax.data.intensity import fit_landmarks, measure_percentiles, normalise
from msseg_jax.data.volumes import write_volume
from msseg_jax.errors import InputError
from msseg_jax.lesions import number_lesions, voxel_mm3
from msseg_jax.process import for_each
from msseg_jax.scores import compare_lesions

SMOOTH_MM = (0.0, 0.7, 1.2, 2.0)  # Gaussian standard deviation
THRESHOLDS = tuple(np.round(np.arange(0.6, 3.01, 0.2), 2))  # standard deviations of the brain
LEAST_MM3 = (3.0, 10.0, 30.0)
LEAST_BRIGHTNESS = (-9.0, 0.8, 1.3)  # of the second visit, standard deviations of the brain
RIM_MM = 3.0  # of the brain, where the mask's edge is seen and not a lesion


@dataclass(frozen=True)
class Rule:
    """What a difference must be to be a new lesion."""

    smooth_mm: float
    threshold: float
    least_mm3: float
    least_brightness: float


@dataclass(frozen=True)
class Case:
    """A patient's normalised visits."""

    time01: np.ndarray  # (D, H, W) float32
    time02: np.ndarray
    inside: np.ndarray  # (D, H, W) bool, the brain less its rim
    spacing_mm: np.ndarray
    target: np.ndarray | None  # (D, H, W) bool


def find_new(case: Case, rule: Rule) -> np.ndarray:
    """The mask of new lesions, (D, H, W) bool."""
    return keep(smoothed(case, rule.smooth_mm), case, rule)


def smoothed(case: Case, smooth_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """The difference and the second visit, both smoothed."""
    sigma = smooth_mm / case.spacing_mm
    return tuple(
        ndimage.gaussian_filter(image, sigma) if smooth_mm else image
        for image in (case.time02 - case.time01, case.time02)
    )


def keep(images: tuple[np.ndarray, np.ndarray], case: Case, rule: Rule) -> np.ndarray:
    """What of a smoothed difference is a new lesion."""
    difference, second = images
    mask = (difference > rule.threshold) & (second > rule.least_brightness) & case.inside
    least_voxels = int(np.ceil(rule.least_mm3 / voxel_mm3(case.spacing_mm)))
    return number_lesions(mask, least_voxels)[0] > 0


def read_case(patient: Patient, landmarks: np.ndarray, percentiles: tuple) -> Case:
    """A patient's files, normalised, and cut to the brain where there is a target to tune by."""
    pair = read_pair(patient)
    visits = [
        normalise(image, pair.brain, measure_percentiles(image, pair.brain, percentiles), landmarks)
        for image in (pair.time01.array, pair.time02.array)
    ]
    spacing_mm = pair.time01.spacing_mm
    inside = ndimage.distance_transform_edt(np.pad(pair.brain, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    target = pair.targets[0] > 0 if len(pair.targets) else None
    return Case(*visits, inside > RIM_MM, spacing_mm, target)


def landmarks_of(patients: list[Patient], percentiles: tuple) -> np.ndarray:
    """Nyul's landmarks of a folder's visits, as the network's preprocessing has them."""

    def measure(patient):
        pair = read_pair(patient)
        return [
            measure_percentiles(visit.array, pair.brain, percentiles)
            for visit in (pair.time01, pair.time02)
        ]

    return fit_landmarks([one for both in for_each(measure, patients, "reading") for one in both])


def tune(patients: list[Patient], landmarks: np.ndarray, percentiles: tuple) -> tuple[Rule, float]:
    """The rule with the best F1 of all lesions of all patients together, and that F1."""
    numbers = itertools.product(SMOOTH_MM, THRESHOLDS, LEAST_MM3, LEAST_BRIGHTNESS)
    rules = [Rule(*four) for four in numbers]

    def count(patient):
        case = read_case(patient, landmarks, percentiles)
        counts = []
        for smooth_mm in SMOOTH_MM:
            images = smoothed(case, smooth_mm)
            for rule in rules:
                if rule.smooth_mm == smooth_mm:
                    found = compare_lesions(case.target, keep(images, case, rule), case.spacing_mm)
                    both = (found.detected, found.confirmed)
                    counts.append([number for a in both for number in (a.sum(), a.size)])
        return counts

    detected, lesions, confirmed, predicted = np.sum(for_each(count, patients, "tuning"), axis=0).T
    sensitivity, precision = detected / np.maximum(lesions, 1), confirmed / np.maximum(predicted, 1)
    f1 = 2 * sensitivity * precision / np.maximum(sensitivity + precision, 1e-9)
    return rules[int(f1.argmax())], float(f1.max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", required=True, type=Path, help="labelled pairs")
    parser.add_argument("--every", type=int, default=1, help="of so many of them one is used")
    parser.add_argument("--dataset", required=True, type=Path, action="append")
    parser.add_argument("--output", required=True, type=Path, action="append")
    flags = parser.parse_args()
    if len(flags.dataset) != len(flags.output):
        parser.error("wanted an --output for each --dataset")
    percentiles = tuple(get_config().data.percentiles)
    patients = find_patients(flags.tune, targets=1)[:: flags.every]
    landmarks = landmarks_of(patients, percentiles)
    rule, f1 = tune(patients, landmarks, percentiles)
    print(f"{rule}: lesion F1 {f1:.3f} of {len(patients)} pairs of {flags.tune}")
    for root, output in zip(flags.dataset, flags.output, strict=True):
        output.mkdir(parents=True, exist_ok=True)
        for patient in find_patients(root, targets=0):
            case = read_case(patient, landmarks, percentiles)
            mask = find_new(case, rule).astype(np.uint8)
            write_volume(output / f"{patient.name}.nii.gz", mask, read_pair(patient).time01)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.difference: {error}")
