"""Count how many of the lesions that a model marks are right, by their volume and probability.

Usage: python -m benchmarks.reliability --reference ROOT --probability DIR --threshold T \
    --min_lesion_mm3 MM3 --min_peak P --flips N --pairs TEXT --output FILE.json
DIR holds the probability maps of `msseg predict --dataset ROOT --probability DIR --flips N`, by a
network that has not seen these pairs. --reference and --probability can be given several times,
such as once for each network. A marked lesion is right if the reference confirms it by the rule of
the MSSEG-2 challenge. `msseg export --reliability FILE.json` stores the table in a model file.
"""

import argparse
import sys
from bisect import bisect_left
from pathlib import Path

import numpy as np

from benchmarks.labelled_maps import LabelledMap, add_flags, labelled_paths, read_labelled_map
from msseg_jax.cli.flags.values import of_setting
from msseg_jax.configuration.options import Options
from msseg_jax.configuration.sections import PredictSettings
from msseg_jax.evaluation.scores import LEAST_MM3, compare_lesions
from msseg_jax.inference.new_lesions import lesion_mask
from msseg_jax.models.model_description import describe_reliability
from msseg_jax.models.reliability import Reliability
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_output
from msseg_jax.volumes.lesions import describe_lesions, voxel_mm3

VOLUMES_MM3 = (10.0, 30.0, 100.0, 300.0)  # bounds between the bins
PROBABILITIES = (0.6, 0.7, 0.8, 0.9)


def marked_lesions(pair: LabelledMap, options: Options) -> list[tuple[float, float, bool]]:
    """Return the volume in mm3, the mean probability and the rightness of each marked lesion.

    The challenge counts no lesions of LEAST_MM3 or less. They are left out.
    """
    mask = lesion_mask(pair.probability, options, voxel_mm3(pair.spacing_mm)) > 0
    found = compare_lesions(pair.target, mask, pair.spacing_mm)
    rows = describe_lesions(found.prediction, np.eye(4), pair.spacing_mm, pair.probability)
    return [
        (row["volume_mm3"], row["mean_probability"], bool(right))
        for row, right in zip(rows, found.confirmed, strict=True)
    ]


def table_of(lesions: list[tuple[float, float, bool]], options: Options, pairs: str) -> Reliability:
    """Count lesions by volume and mean probability.

    Args:
      lesions: from `marked_lesions`.
      options: the options with which they were marked. They determine the lowest bins.
      pairs: the pairs in words.

    Raises:
      InputError: `pairs` is empty or not a single line.
    """
    bounds = [LEAST_MM3, *(one for one in VOLUMES_MM3 if one > options.min_lesion_mm3)]
    levels = [options.threshold, *(one for one in PROBABILITIES if one > options.threshold)]
    marked = np.zeros((len(bounds), len(levels)), int)
    right = np.zeros_like(marked)
    for volume_mm3, probability, is_right in lesions:
        # The bins of `Reliability`: they begin above their lower bound.
        # Rounding may put a lesion exactly on the lowest bound. It then counts in the lowest bin.
        row = max(0, bisect_left(bounds, volume_mm3) - 1)
        column = max(0, bisect_left(levels, probability) - 1)
        marked[row, column] += 1
        right[row, column] += is_right
    content = {
        "above_mm3": bounds, "above_probability": levels, "right": right.tolist(),
        "marked": marked.tolist(), "threshold": options.threshold,
        "min_lesion_mm3": options.min_lesion_mm3, "min_peak": options.min_peak,
        "flips": options.flips, "pairs": pairs,
    }  # fmt: skip
    return Reliability.of(content, "reliability", complete=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_flags(parser)
    parser.add_argument(
        "--threshold", required=True, type=of_setting(PredictSettings, "threshold"), metavar="P",
        help="probability above which a voxel belongs to a lesion",
    )  # fmt: skip
    parser.add_argument(
        "--min_lesion_mm3", required=True, type=of_setting(PredictSettings, "min_lesion_mm3"),
        metavar="MM3", help="smallest lesion, mm3",
    )  # fmt: skip
    parser.add_argument(
        "--min_peak", required=True, type=of_setting(PredictSettings, "min_peak"), metavar="P",
        help="probability that a lesion has in at least one voxel; 0: any",
    )  # fmt: skip
    parser.add_argument(
        "--flips", type=int, choices=(1, 2, 4, 8), default=1,
        help="mirror images with which the maps were made (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--pairs", required=True, metavar="TEXT",
        help="which pairs these are, in words, for the reader of a report: '30 generated pairs of "
        "scans from two hospitals'",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE",
        help="file to write (.json); an existing one is replaced",
    )  # fmt: skip
    flags = parser.parse_args()
    names = ("threshold", "min_lesion_mm3", "min_peak", "flips")
    options = Options.of({name: getattr(flags, name) for name in names}, "options")
    table_of([], options, flags.pairs)  # raise now what would be raised after the long part
    check_output(flags.output, (".json",))
    lesions = []
    paths = labelled_paths(flags.reference, flags.probability)
    for reference, probability in paths:
        pair = read_labelled_map(reference, probability, options.threshold)
        lesions += marked_lesions(pair, options)
    table = table_of(lesions, options, flags.pairs)
    text = table.model_dump_json(indent=1) + "\n"
    write_beside(flags.output, lambda file: file.write_text(text, encoding="utf-8"))
    print(describe_reliability(table))
    print(f"table: {flags.output} ({len(lesions)} marked lesions in {len(paths)} pairs)")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.reliability: {error}")
