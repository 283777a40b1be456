"""Find the threshold and the smallest lesion volume with the best lesion F1 on labelled pairs.

Usage: python -m benchmarks.operating_point --reference ROOT --probability DIR
DIR holds the probability maps that `msseg predict --dataset ROOT --probability DIR` wrote. F1 is
computed over the lesions of all patients together, by the rules of the MSSEG-2 challenge.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

from msseg_jax.evaluation.scores import compare_lesions
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import bounding_box, grid_difference
from msseg_jax.volumes.layout import CONSENSUS
from msseg_jax.volumes.lesions import number_lesions, voxel_mm3
from msseg_jax.volumes.nifti import read_volume

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_MM3 = (3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0)


def count(reference: Path, probability: Path) -> np.ndarray:
    """Count the lesions of a patient for each threshold and smallest lesion volume.

    Returns:
      (thresholds, volumes, 4) integers. The last axis is: detected reference lesions, all reference
      lesions, confirmed predicted lesions, all predicted lesions.

    Raises:
      InputError: the map is not on the grid of the reference.
    """
    volume, likelihood = read_volume(reference), read_volume(probability)
    if problem := grid_difference(volume, likelihood):
        raise InputError(problem)
    likelihood = likelihood.array
    target = volume.array > 0
    box = bounding_box(target | (likelihood > min(THRESHOLDS)))
    target, likelihood = target[box], likelihood[box]
    voxel = voxel_mm3(volume.spacing_mm)
    counts = []
    for threshold, least_mm3 in itertools.product(THRESHOLDS, LEAST_MM3):
        labels, _ = number_lesions(likelihood > threshold, int(np.ceil(least_mm3 / voxel)))
        found = compare_lesions(target, labels > 0, volume.spacing_mm)
        both = (found.detected, found.confirmed)
        counts.append([number for flags in both for number in (flags.sum(), flags.size)])
    return np.array(counts).reshape(len(THRESHOLDS), len(LEAST_MM3), 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--reference", required=True, type=Path, metavar="ROOT", help="labelled pairs"
    )
    parser.add_argument(
        "--probability", required=True, type=Path, metavar="DIR", help="their probability maps"
    )
    flags = parser.parse_args()
    maps = sorted(flags.probability.glob("*.nii.gz"))
    if not maps:
        raise InputError(
            f"--probability={flags.probability} holds no probability map; expected files "
            "<patient>.nii.gz. Make them with msseg predict --dataset ROOT --probability DIR."
        )
    total = sum(
        count(flags.reference / path.name.removesuffix(".nii.gz") / CONSENSUS, path)
        for path in maps
    )
    detected, lesions, confirmed, predicted = np.moveaxis(total, -1, 0)
    f1 = 2 * detected * confirmed / np.maximum(detected * predicted + confirmed * lesions, 1)
    print("threshold " + "".join(f"{mm3:8g}" for mm3 in LEAST_MM3) + "  mm3")
    for threshold, row in zip(THRESHOLDS, f1, strict=True):
        print(f"{threshold:9g} " + "".join(f"{value:8.3f}" for value in row))
    best = np.unravel_index(f1.argmax(), f1.shape)
    print(
        f"best: threshold {THRESHOLDS[best[0]]:g}, smallest lesion {LEAST_MM3[best[1]]:g} mm3; "
        f"{detected[best]} of {lesions[best]} detected, {confirmed[best]} of {predicted[best]} "
        f"confirmed, in {len(maps)} pairs"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.operating_point: {error}")
