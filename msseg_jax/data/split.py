"""Choose the patients to hold out from training: some of them, or one of several folds.

Whole groups are held out. They are drawn with the seed, and new lesions are as frequent among them
as among all groups. A group consists of all pairs that were made from one scan, or of a single
patient. If a network were trained on some pairs of a scan, its scores on the other pairs of this
scan would be too good, because they show the same brain.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import Patient, scan_of

FOLDS_NEED = 2  # groups with new lesions: if one is held out, the other one is used for training

Groups = list[list[int]]  # patient numbers of each group
Numbers = set[int]  # patient numbers


def groups_of(patients: list[Patient]) -> Groups:
    """Return the groups of patients, ordered by their first members.

    Raises:
      InputError: The record of the scan from which a pair was made cannot be read.
    """
    groups: dict[str, list[int]] = {}
    for k, patient in enumerate(patients):
        # A patient and a scan with the same name count as the same person.
        groups.setdefault(scan_of(patient) or patient.name, []).append(k)
    return list(groups.values())


@dataclass(frozen=True)
class HoldOut:
    """The rule for holding out patients. With `patients` and `folds` 0, none are held out."""

    seed: int
    patients: int = 0  # number of patients to hold out; whole groups may add a few
    folds: int = 0  # number of folds into which all groups are divided; 0: no folds
    fold: int = 0  # number of the fold to hold out, from 0

    def largest(self, groups: Groups) -> int:
        """Return an upper bound on the number of held-out patients.

        Raises:
          InputError: There are too few patients or groups.
        """
        sizes = sorted(map(len, groups), reverse=True)
        patients = sum(sizes)
        if self.folds > len(groups):
            raise InputError(
                f"config.data.folds is {self.folds}, but there are only {len(groups)} "
                f"{_kind(groups)}. Use at most {len(groups)} folds, or add patients."
            )
        if self.folds:
            return sum(sizes[: -(-len(groups) // self.folds)])
        most = patients - sizes[0]  # up to this number, any choice leaves a group for training
        if not 0 <= self.patients <= most:
            why = (
                f"at least one of the {patients} patients must be left for training."
                if sizes[0] == 1
                else f"{sizes[0]} of the {patients} patients are pairs made from one scan. They "
                "stay together, and some patients must be left for training. Hold out fewer "
                "patients, or add pairs from other scans."
            )
            raise InputError(
                f"config.data.validation_patients is {self.patients}; expected 0 to {most}, "
                f"because {why}"
            )
        # Upper bound: count how many of the smallest groups would be needed, then assume that the
        # same number of the largest groups is drawn.
        needed = sum(held < self.patients for held in accumulate(sizes[::-1], initial=0))
        return sum(sizes[:needed])

    def choose(self, has_lesions: list[bool], groups: Groups) -> Numbers:
        """Return the patients to hold out.

        Args:
          has_lesions: for each patient, whether it has new lesions.

        Raises:
          InputError: There are too few groups, or too few groups with new lesions for folds.
        """
        self.largest(groups)
        if self.folds:
            return self.all_folds(has_lesions, groups)[self.fold]
        with_lesions = _any_in(groups, has_lesions)
        choices = (
            _patients(choose_validation(with_lesions, count, self.seed), groups)
            for count in range(len(groups))
        )
        return next(chosen for chosen in choices if len(chosen) >= self.patients)

    def all_folds(self, has_lesions: list[bool], groups: Groups) -> list[Numbers]:
        """Return the patients of each fold; an empty list without folds.

        A fold may have no new lesion. Its scores then only count false lesions.

        Raises:
          InputError: One of the runs would have no new lesion to train on.
        """
        if not self.folds:
            return []
        with_lesions = _any_in(groups, has_lesions)
        # The first two groups with new lesions are dealt to different folds, so each run has one.
        if sum(with_lesions) < FOLDS_NEED:
            raise InputError(
                f"config.data.folds is {self.folds}, but ground_truth.nii.gz has new-lesion voxels "
                f"for only {sum(with_lesions)} of the {len(groups)} {_kind(groups)}. At least "
                f"{FOLDS_NEED} of them are needed for any number of folds, because each is held "
                "out once, and that run must have new lesions to train on. Add patients with new "
                "lesions, or check the maps."
            )
        dealt = deal_folds(with_lesions, self.folds, self.seed)
        return [_patients(fold, groups) for fold in dealt]


def _kind(groups: Groups) -> str:
    """Return a name for the groups, for use in an error message."""
    if max(map(len, groups)) == 1:
        return "patients"
    return "scans and patients (pairs made from one scan stay together)"


def _any_in(groups: Groups, has_lesions: list[bool]) -> list[bool]:
    """Return for each group whether one of its patients has new lesions."""
    return [any(has_lesions[k] for k in group) for group in groups]


def _patients(chosen: set[int], groups: Groups) -> Numbers:
    """Return the patients of the chosen groups."""
    return {k for number in chosen for k in groups[number]}


def choose_validation(has_lesions: list[bool], count: int, seed: int) -> set[int]:
    """Choose `count` groups to hold out, and return their numbers.

    New lesions are about as frequent among them as among all groups. If at least two groups have
    new lesions, training and validation each get at least one of them, because neither works
    without new lesions. If only one group has new lesions, it is used for training, unless too few
    other groups could be held out.
    """
    with_lesions, without = _shuffled(has_lesions, seed)
    share = round(count * len(with_lesions) / len(has_lesions))
    if count and len(with_lesions) > 1:
        share = min(max(share, 1), len(with_lesions) - 1)
    elif count <= len(without):
        share = 0
    share = max(share, count - len(without))
    return set(with_lesions[:share] + without[: count - share])


def deal_folds(has_lesions: list[bool], folds: int, seed: int) -> list[set[int]]:
    """Divide all groups into folds, and return the numbers of the groups in each fold.

    The numbers of groups in two folds differ by at most one, and so do the numbers of groups with
    new lesions.
    """
    with_lesions, without = _shuffled(has_lesions, seed)
    dealt = with_lesions + without  # then dealt like cards, which spreads both kinds evenly
    return [set(dealt[fold::folds]) for fold in range(folds)]


def _shuffled(has_lesions: list[bool], seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the groups with and without new lesions, both in random order."""
    generator = np.random.default_rng((seed, len(has_lesions)))
    order = [int(k) for k in generator.permutation(len(has_lesions))]
    return [k for k in order if has_lesions[k]], [k for k in order if not has_lesions[k]]
