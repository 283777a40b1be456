"""Find the threshold and the smallest lesion volume with the best lesion F1 on labelled pairs.

Usage: python -m benchmarks.operating_point --reference ROOT --probability DIR
DIR holds the probability maps that `msseg predict --dataset ROOT --probability DIR` wrote. F1 is
computed over the lesions of all patients together, by the rules of the MSSEG-2 challenge. Both
flags can be given several times, such as once for each network with the pairs that it has not seen.
`python -m benchmarks.reliability` then counts how many of the marked lesions are right.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

from benchmarks.labelled_maps import add_flags, labelled_paths, read_labelled_map
from msseg_jax.evaluation.scores import compare_lesions
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.lesions import number_lesions, voxel_mm3

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
    pair = read_labelled_map(reference, probability, min(THRESHOLDS))
    voxel = voxel_mm3(pair.spacing_mm)
    counts = []
    for threshold, least_mm3 in itertools.product(THRESHOLDS, LEAST_MM3):
        labels, _ = number_lesions(pair.probability > threshold, int(np.ceil(least_mm3 / voxel)))
        found = compare_lesions(pair.target, labels > 0, pair.spacing_mm)
        both = (found.detected, found.confirmed)
        counts.append([number for flags in both for number in (flags.sum(), flags.size)])
    return np.array(counts).reshape(len(THRESHOLDS), len(LEAST_MM3), 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_flags(parser)
    flags = parser.parse_args()
    paths = labelled_paths(flags.reference, flags.probability)
    total = sum(count(*pair) for pair in paths)
    detected, lesions, confirmed, predicted = np.moveaxis(total, -1, 0)
    f1 = 2 * detected * confirmed / np.maximum(detected * predicted + confirmed * lesions, 1)
    print("threshold " + "".join(f"{mm3:8g}" for mm3 in LEAST_MM3) + "  mm3")
    for threshold, row in zip(THRESHOLDS, f1, strict=True):
        print(f"{threshold:9g} " + "".join(f"{value:8.3f}" for value in row))
    best = np.unravel_index(f1.argmax(), f1.shape)
    print(
        f"best: threshold {THRESHOLDS[best[0]]:g}, smallest lesion {LEAST_MM3[best[1]]:g} mm3; "
        f"{detected[best]} of {lesions[best]} detected, {confirmed[best]} of {predicted[best]} "
        f"confirmed, in {len(paths)} pairs"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.operating_point: {error}")
