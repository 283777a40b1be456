"""Compare larger tiles with the default: time, probabilities and mask of one patient.

Usage: python -m benchmarks.tiles --model RUN --patient FOLDER [--tiles 48,96]
The first call of each tile size, which includes compilation, and the second call are timed.
"""

import argparse
import time
from pathlib import Path

import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path, metavar="RUN", help="a trained run")
    parser.add_argument(
        "--patient", required=True, type=Path, metavar="FOLDER", help="a pair in the MSSEG-2 layout"
    )
    parser.add_argument("--tiles", default="112", help="largest tile sides, voxels; default: 112")
    flags = parser.parse_args()
    from msseg_jax.system.machine import keep_freed_memory

    keep_freed_memory()
    from msseg_jax.evaluation.scores import dice
    from msseg_jax.inference.ensemble import Ensemble
    from msseg_jax.volumes.layout import patient_in
    from msseg_jax.volumes.pair import read_pair

    patient = patient_in(flags.patient)
    pair = read_pair(patient)
    ensemble = Ensemble([flags.model])
    default = None
    print(
        f"{'tile':>7}{'first, s':>10}{'second, s':>11}{'probability differs, mean':>28}"
        f"{'at most':>10}{'Dice':>8}"
    )
    for tile in [None, *map(int, flags.tiles.split(","))]:
        options = ensemble.options(tile=tile)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            probability = ensemble.segment(patient, pair, options).probability
            seconds.append(time.perf_counter() - start)
        if default is None:
            default = probability
        difference = np.abs(probability - default)[pair.brain]
        agreement = dice(default > options.threshold, probability > options.threshold)
        print(
            f"{tile or 'default':>7}{seconds[0]:>10.1f}{seconds[1]:>11.1f}"
            f"{difference.mean():>28.1e}{difference.max():>10.2f}{agreement:>8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
