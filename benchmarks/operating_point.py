"""Find the threshold and the smallest lesion volume with the best lesion F1 on labelled pairs.

Usage: python -m benchmarks.operating_point --reference ROOT --probability DIR
DIR holds the probability maps that `msseg predict --dataset ROOT --probability DIR` wrote. F1 is
computed over the lesions of all patients together, by the rules of the MSSEG-2 challenge. Both
flags can be given several times, such as once for each network with the pairs that it has not seen.
With --at, sensitivity, PPV and F1 at one point are printed as well, by the volume of the lesions.
`python -m benchmarks.reliability` then counts how many of the marked lesions are right.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.labelled_maps import LabelledMap, add_flags, labelled_paths, read_labelled_map
from benchmarks.lesion_sizes import HEADING, by_volume, format_row
from msseg_jax.evaluation.scores import Agreement, compare_lesions
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.lesions import number_lesions, voxel_mm3

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
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
    counts = []
    for threshold, least_mm3 in itertools.product(THRESHOLDS, LEAST_MM3):
        found = compare_at(pair, threshold, least_mm3)
        both = (found.detected, found.confirmed)
        counts.append([number for flags in both for number in (flags.sum(), flags.size)])
    return np.array(counts).reshape(len(THRESHOLDS), len(LEAST_MM3), 4)


def compare_at(pair: LabelledMap, threshold: float, least_mm3: float) -> Agreement:
    """Compare the lesions that are marked at one operating point with the reference."""
    least_voxels = int(np.ceil(least_mm3 / voxel_mm3(pair.spacing_mm)))
    labels, _ = number_lesions(pair.probability > threshold, least_voxels)
    return compare_lesions(pair.target, labels > 0, pair.spacing_mm)


def lesions_at(pair: LabelledMap, threshold: float, least_mm3: float) -> pd.DataFrame:
    """Return all lesions of a pair as rows of the table `lesions.csv` of an evaluation."""
    found = compare_at(pair, threshold, least_mm3)
    rows = []
    for mask, labels, agrees in (
        ("reference", found.reference, found.detected),
        ("prediction", found.prediction, found.confirmed),
    ):
        volumes_mm3 = np.bincount(labels.ravel(), minlength=agrees.size + 1)[1:]
        volumes_mm3 = volumes_mm3 * voxel_mm3(pair.spacing_mm)
        rows += [(mask, *both) for both in zip(volumes_mm3, agrees, strict=True)]
    return pd.DataFrame(rows, columns=["mask", "volume_mm3", "agrees"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_flags(parser)
    parser.add_argument(
        "--at", nargs=2, type=float, metavar=("P", "MM3"),
        help="also print the scores with this threshold and smallest lesion, by volume",
    )  # fmt: skip
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
    if flags.at:
        least = min(flags.at[0], min(THRESHOLDS))
        tables = [lesions_at(read_labelled_map(*pair, least), *flags.at) for pair in paths]
        print(f"threshold {flags.at[0]:g}, smallest lesion {flags.at[1]:g} mm3:\n{HEADING}")
        for row in by_volume(pd.concat(tables)):
            print(format_row(*row))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.operating_point: {error}")
