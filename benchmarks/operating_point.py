"""Find the threshold, smallest lesion and smallest peak with the best lesion F1 on labelled pairs.

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

import numpy as np
import pandas as pd

from benchmarks.labelled_maps import LabelledMap, add_flags, labelled_paths, read_labelled_map
from benchmarks.lesion_sizes import HEADING, by_volume, format_row
from msseg_jax.configuration.options import Options
from msseg_jax.evaluation.scores import Agreement, compare_lesions
from msseg_jax.inference.new_lesions import lesion_mask
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.lesions import voxel_mm3

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_MM3 = (3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0)
PEAKS = (0.0, 0.8, 0.9, 0.95, 0.99)
POINTS = [
    Options(threshold=threshold, min_lesion_mm3=least_mm3, min_peak=peak)
    for peak, threshold, least_mm3 in itertools.product(PEAKS, THRESHOLDS, LEAST_MM3)
]


def count(pair: LabelledMap) -> np.ndarray:
    """Count the lesions of a patient at each operating point.

    Returns:
      (peaks, thresholds, volumes, 4) integers. The last axis is: detected reference lesions, all
      reference lesions, confirmed predicted lesions, all predicted lesions.
    """
    counts = []
    for options in POINTS:
        found = compare_at(pair, options)
        both = (found.detected, found.confirmed)
        counts.append([number for flags in both for number in (flags.sum(), flags.size)])
    return np.array(counts).reshape(len(PEAKS), len(THRESHOLDS), len(LEAST_MM3), 4)


def compare_at(pair: LabelledMap, options: Options) -> Agreement:
    """Compare the lesions that are marked at one operating point with the reference."""
    mask = lesion_mask(pair.probability, options, voxel_mm3(pair.spacing_mm)) > 0
    return compare_lesions(pair.target, mask, pair.spacing_mm)


def lesions_at(pair: LabelledMap, options: Options) -> pd.DataFrame:
    """Return all lesions of a pair as rows of the table `lesions.csv` of an evaluation."""
    found = compare_at(pair, options)
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
        "--at", nargs=3, type=float, metavar=("P", "MM3", "PEAK"),
        help="also print the scores with this threshold, smallest lesion and smallest peak, by "
        "volume",
    )  # fmt: skip
    flags = parser.parse_args()
    names = ("threshold", "min_lesion_mm3", "min_peak")
    at = Options.of(dict(zip(names, flags.at, strict=True)), "--at") if flags.at else None
    paths = labelled_paths(flags.reference, flags.probability)
    counts, tables = [], []
    least = min(THRESHOLDS) if at is None else min(at.threshold, *THRESHOLDS)
    for reference, probability in paths:
        pair = read_labelled_map(reference, probability, least)
        counts.append(count(pair))
        if at is not None:
            tables.append(lesions_at(pair, at))
    detected, lesions, confirmed, predicted = np.moveaxis(sum(counts), -1, 0)
    f1 = 2 * detected * confirmed / np.maximum(detected * predicted + confirmed * lesions, 1)
    for peak, of_peak in zip(PEAKS, f1, strict=True):
        print(f"smallest peak {peak:g}: F1 by threshold and smallest lesion")
        print("threshold " + "".join(f"{mm3:8g}" for mm3 in LEAST_MM3) + "  mm3")
        for threshold, row in zip(THRESHOLDS, of_peak, strict=True):
            print(f"{threshold:9g} " + "".join(f"{value:8.3f}" for value in row))
    number = int(f1.argmax())
    best, where = POINTS[number], np.unravel_index(number, f1.shape)
    print(
        f"best: threshold {best.threshold:g}, smallest lesion {best.min_lesion_mm3:g} mm3, "
        f"smallest peak {best.min_peak:g}; {detected[where]} of {lesions[where]} detected, "
        f"{confirmed[where]} of {predicted[where]} confirmed, in {len(paths)} pairs"
    )
    if at is not None:
        print(
            f"threshold {at.threshold:g}, smallest lesion {at.min_lesion_mm3:g} mm3, smallest peak "
            f"{at.min_peak:g}:\n{HEADING}"
        )
        for row in by_volume(pd.concat(tables)):
            print(format_row(*row))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.operating_point: {error}")
