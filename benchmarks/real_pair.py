"""Test trained networks, and a simple baseline, on real pairs that have a mask of all changes.

Usage: python -m benchmarks.real_pair PATIENT_FOLDER ... [--model MODEL ...] [--tune ROOT]
A PATIENT_FOLDER holds a pair in the MSSEG-2 layout. Its ground_truth.nii.gz marks the new lesions,
and its change_mask.nii.gz marks all lesion changes. Each pair is segmented as it is, with its
visits exchanged, and with each visit used as both visits; the latter must give no lesions. All
changes that a method finds are compared with the change mask, too: new, enlarging and vanished
lesions, or, if the method finds only new lesions, those of both orders of the visits.
With --tune, the baseline of `benchmarks.difference` is tuned on the labelled pairs of ROOT and
segments the same pairs. Lesions are counted and detected by the rules of the MSSEG-2 challenge.

The released weights have not seen the two public pairs. Give only networks that have not seen the
patient as MODEL.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import difference
from benchmarks.options import add_options, given_options
from msseg_jax.evaluation.scores import compare_lesions, dice, find_lesions
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.layout import Patient, patient_in
from msseg_jax.volumes.lesions import voxel_mm3
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.pair import Pair, read_pair

LEAST_MM3 = 10  # smaller predicted lesions do not count as false positives

# Returns a bool mask of new lesions, and one of all changes if the method finds them as well.
Method = Callable[[Patient, Pair], tuple[np.ndarray, np.ndarray | None]]


def network(models: list[Path] | None, given: dict[str, float | None]) -> Method:
    """Return the method that segments with trained networks and the options stored with them.

    Args:
      models: runs or exported files; None takes the released weights.
      given: options that replace the stored ones.
    """
    from msseg_jax.inference.ensemble import Ensemble
    from msseg_jax.inference.prediction import predict_pair
    from msseg_jax.models.folds import runs_of
    from msseg_jax.models.released import released

    ensemble = Ensemble(runs_of(models or [released()]))
    options = ensemble.options(**given)
    for member in ensemble.members:
        print(f"network: {member}")

    def segment(patient: Patient, pair: Pair) -> tuple[np.ndarray, np.ndarray | None]:
        found = predict_pair(ensemble, patient, pair, options).found
        return found.mask > 0, None if found.changes is None else found.changes > 0

    return segment


def baseline(root: Path, every: int) -> Method:
    """Return the baseline of `benchmarks.difference`, tuned on every `every`-th pair of `root`."""
    fitted = difference.fit(root, every)
    print(f"difference: {fitted.rule}, lesion F1 {fitted.f1:.3f} on {fitted.pairs} pairs of {root}")
    return lambda _, pair: (difference.find_new(pair, fitted), None)


def describe(folder: Path, method: Method) -> None:
    """Print the lesions that a method finds in a pair, for each of four orders of its visits.

    Raises:
      InputError: a file is missing, or the change mask is not on the grid of the pair.
    """
    patient = patient_in(folder, targets=1)
    pair = read_pair(patient)
    marked = read_volume(folder / "change_mask.nii.gz")
    if problem := grid_difference(pair.time01, marked):
        raise InputError(problem)
    change = marked.array > 0
    reference = pair.targets[0] > 0
    one, two = pair.time01, pair.time02
    orders = {
        "as they are": (one, two), "exchanged": (two, one),
        "first twice": (one, one), "second twice": (two, two),
    }  # fmt: skip
    found = {}
    for name, visits in orders.items():
        mask, _ = found[name] = method(patient, replace(pair, time01=visits[0], time02=visits[1]))
        line = f"  {name}: {_predicted(mask, change, pair)}"
        print(line + (f"; {_compared(reference, mask, pair)}" if name == "as they are" else ""))
    new, changes = found["as they are"]
    how = "all classes"
    if changes is None:
        changes, how = new | found["exchanged"][0], "both orders"
    print(
        f"  Dice with the mask of all changes: {dice(change, new):.3f} (new lesions), "
        f"{dice(change, changes):.3f} ({how})"
    )


def _predicted(mask: np.ndarray, change: np.ndarray, pair: Pair) -> str:
    spacing_mm = pair.time01.spacing_mm
    labels, count = find_lesions(mask, spacing_mm)
    volumes_mm3 = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_mm3(spacing_mm)
    in_change = np.bincount(labels[change], minlength=count + 1)[1:] > 0
    outside = int(((volumes_mm3 >= LEAST_MM3) & ~in_change).sum())
    return (
        f"{count} predicted, {volumes_mm3.sum():.0f} mm3; false positives ({LEAST_MM3} mm3 or "
        f"more, outside all marked changes): {outside}"
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
    parser.add_argument("patient_folder", type=Path, nargs="+", help="a pair with change mask")
    parser.add_argument(
        "--model", type=Path, action="append",
        help="a run or an exported file; can be repeated; default: the released weights",
    )  # fmt: skip
    parser.add_argument(
        "--tune", type=Path, metavar="ROOT", help="also test the baseline, tuned on these pairs"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="tune on every N-th pair; default: 1"
    )
    add_options(parser)
    flags = parser.parse_args()
    methods = {"network": network(flags.model, given_options(flags))}
    if flags.tune:
        methods["difference"] = baseline(flags.tune, flags.every)
    for folder in flags.patient_folder:
        for name, method in methods.items():
            print(f"{folder.name}, {name}:")
            describe(folder, method)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.real_pair: {error}")
