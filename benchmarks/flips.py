"""Compare averages over mirror images with the default: time, and new lesions of a pair.

Usage: python -m benchmarks.flips PATIENT_FOLDER ... [--model MODEL ...] [--rounds 3]
A PATIENT_FOLDER holds a pair in the MSSEG-2 layout, with a reference of the new lesions. The
numbers of mirror images take turns in each round, and the fastest round of each counts. The ratio
is that of processor times, which other work on the machine changes little. Lesions are compared by
the rules of the MSSEG-2 challenge.

Give only networks that have not seen the pair. The released weights have not seen the two public
pairs.
"""

import argparse
import time
from pathlib import Path

FLIPS = (1, 2, 4, 8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient_folder", type=Path, nargs="+", help="a pair with a reference")
    parser.add_argument(
        "--model", type=Path, action="append",
        help="a run or an exported file; can be repeated; default: the released weights",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing; default: 3")
    flags = parser.parse_args()
    from msseg_jax.inference.ensemble import Ensemble
    from msseg_jax.models.folds import runs_of
    from msseg_jax.models.released import released
    from msseg_jax.system.machine import keep_freed_memory

    keep_freed_memory()
    ensemble = Ensemble(runs_of(flags.model or [released()]))
    for member in ensemble.members:
        print(f"network: {member}")
    for folder in flags.patient_folder:
        compare(folder, ensemble, flags.rounds)


def compare(folder: Path, ensemble, rounds: int) -> None:
    """Print a row for each number of mirror images."""
    import numpy as np

    from msseg_jax.evaluation.scores import compare_lesions, dice
    from msseg_jax.inference.new_lesions import NewLesions
    from msseg_jax.volumes.layout import patient_in
    from msseg_jax.volumes.pair import read_pair

    patient = patient_in(folder, targets=1)
    pair = read_pair(patient)
    wall_s = dict.fromkeys(FLIPS, float("inf"))
    processor_s = dict.fromkeys(FLIPS, float("inf"))
    masks = {}
    ensemble.segment(patient, pair, ensemble.options(flips=1))  # compiles for all of them
    for _ in range(rounds):
        for flips in FLIPS:
            options = ensemble.options(flips=flips)
            start, start_processor = time.perf_counter(), time.process_time()
            found = ensemble.segment(patient, pair, options)
            wall_s[flips] = min(wall_s[flips], time.perf_counter() - start)
            used_s = time.process_time() - start_processor
            processor_s[flips] = min(processor_s[flips], used_s)
            masks[flips] = NewLesions(pair.time01, found.maps, found.disagreement, options)
    print(
        f"{folder.name}\n{'flips':>7}{'s':>8}{'ratio':>8}{'lesions':>9}{'mm3':>7}"
        f"{'Dice with 1':>13}{'found':>9}{'false':>7}{'Dice with reference':>21}"
    )
    reference = pair.targets[0] > 0
    for flips, found in masks.items():
        mask = found.mask > 0
        agreement = compare_lesions(reference, mask, pair.time01.spacing_mm)
        detected = f"{agreement.detected.sum()} of {agreement.detected.size}"
        print(
            f"{flips:>7}{wall_s[flips]:>8.1f}{processor_s[flips] / processor_s[1]:>8.2f}"
            f"{found.count:>9}{found.volume_mm3:>7.0f}{dice(masks[1].mask > 0, mask):>13.3f}"
            f"{detected:>9}{np.sum(~agreement.confirmed):>7}{dice(reference, mask):>21.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
