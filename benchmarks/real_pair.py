"""What is found in real pairs with a change mask: by trained networks, and by a difference.

Usage: python -m benchmarks.real_pair PATIENT_FOLDER ... [--model MODEL ...] [--tune ROOT]
A PATIENT_FOLDER holds a pair in the MSSEG-2 layout, whose ground_truth.nii.gz is what is new, and
change_mask.nii.gz, any lesion change. Each pair is segmented as it is, with its visits exchanged,
and with each visit taken for both: the latter must give nothing. With --tune the simple rival
(benchmarks.difference), tuned on the labelled pairs of ROOT, does the same.
Lesions are counted, and detected, by the challenge's rules. Of the released weights each network
was trained on one of the two public pairs: what counts is what the other, as a MODEL, finds in it.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import difference
from msseg_jax.evaluation.scores import compare_lesions, dice, find_lesions
from msseg_jax.inference.new_lesions import lesion_mask
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.layout import Patient, patient_in
from msseg_jax.volumes.lesions import voxel_mm3
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.pair import Pair, read_pair

LEAST_MM3 = 10  # smaller predicted lesions are not counted as outside the change mask

Method = Callable[[Patient, Pair], np.ndarray]  # to a bool mask of new lesions


def network(models: list[Path] | None) -> Method:
    """Trained networks, with their own options."""
    from msseg_jax.inference.ensemble import Ensemble
    from msseg_jax.models.folds import runs_of
    from msseg_jax.models.released import released

    ensemble = Ensemble(runs_of(models or [released()]))
    options = ensemble.options()
    for member in ensemble.members:
        print(f"network: {member}")

    def segment(patient: Patient, pair: Pair) -> np.ndarray:
        probability = ensemble.segment(patient, pair, options).probability
        return lesion_mask(probability, options, voxel_mm3(pair.time01.spacing_mm)) > 0

    return segment


def rival(root: Path, every: int) -> Method:
    """The difference of the visits, tuned on labelled pairs."""
    fitted = difference.fit(root, every)
    print(f"difference: {fitted.rule}, lesion F1 {fitted.f1:.3f} of {fitted.pairs} pairs of {root}")
    return lambda _, pair: difference.find_new(pair, fitted)


def describe(folder: Path, method: Method) -> None:
    """Print what a method finds in a pair, in its four orders."""
    patient = patient_in(folder, targets=1)
    pair = read_pair(patient)
    marked = read_volume(folder / "change_mask.nii.gz")
    if problem := grid_difference(pair.time01, marked):
        raise InputError(problem)
    change = marked.array > 0
    reference = pair.targets[0] > 0
    one, two = pair.time01, pair.time02
    for name, visits in (
        ("as they are", (one, two)), ("exchanged", (two, one)),
        ("first twice", (one, one)), ("second twice", (two, two)),
    ):  # fmt: skip
        mask = method(patient, replace(pair, time01=visits[0], time02=visits[1]))
        line = f"  {name}: {_predicted(mask, change, pair)}"
        print(line + (f"; {_compared(reference, mask, pair)}" if name == "as they are" else ""))


def _predicted(mask: np.ndarray, change: np.ndarray, pair: Pair) -> str:
    spacing_mm = pair.time01.spacing_mm
    labels, count = find_lesions(mask, spacing_mm)
    volumes_mm3 = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_mm3(spacing_mm)
    in_change = np.bincount(labels[change], minlength=count + 1)[1:] > 0
    outside = int(((volumes_mm3 >= LEAST_MM3) & ~in_change).sum())
    return (
        f"{count} predicted, {volumes_mm3.sum():.0f} mm3, of which {outside} of {LEAST_MM3} mm3 or "
        "more outside every marked change"
    )


def _compared(reference: np.ndarray, mask: np.ndarray, pair: Pair) -> str:
    agreement = compare_lesions(reference, mask, pair.time01.spacing_mm)
    if not agreement.detected.size:
        return "the reference has no new lesion"
    largest = agreement.reference == 1
    volume_mm3 = largest.sum() * voxel_mm3(pair.time01.spacing_mm)
    return (
        f"largest new lesion, {volume_mm3:.0f} mm3: "
        f"{'detected' if agreement.detected[0] else 'NOT detected'}, "
        f"{100 * mask[largest].mean():.0f} % of its voxels; detected {agreement.detected.sum()} of "
        f"{agreement.detected.size}, Dice {dice(reference, mask):.3f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient_folder", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, action="append", help="default: the released weights")
    parser.add_argument("--tune", type=Path, metavar="ROOT", help="labelled pairs for the rival")
    parser.add_argument("--every", type=int, default=1, help="one in so many of them is used")
    flags = parser.parse_args()
    methods = {"network": network(flags.model)}
    if flags.tune:
        methods["difference"] = rival(flags.tune, flags.every)
    for folder in flags.patient_folder:
        for name, method in methods.items():
            print(f"{folder.name}, {name}:")
            describe(folder, method)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.real_pair: {error}")
