"""Who is trained on and who is held out: some of the patients, or one fold of several.

Whole groups are held out, with new lesions in proportion, by the seed. A group is the pairs that
were made of one scan, or else one patient. A network that is trained on some pairs of a scan knows
the brain of the others, so their scores would be too good.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import Patient, scan_of

Groups = list[list[int]]  # the numbers of each group's patients
Numbers = set[int]  # of patients


def groups_of(patients: list[Patient]) -> Groups:
    """Return the groups of patients, in the order of their first members.

    Raises:
      InputError: The record of the scan from which a pair was made cannot be read.
    """
    groups: dict[str, list[int]] = {}
    for k, patient in enumerate(patients):
        # A patient and a scan with the same name are taken for the same person.
        groups.setdefault(scan_of(patient) or patient.name, []).append(k)
    return list(groups.values())


@dataclass(frozen=True)
class HoldOut:
    """Which patients are not trained on; none, if both `patients` and `folds` are 0."""

    seed: int
    patients: int = 0  # number to hold out; a few more if that takes whole groups
    folds: int = 0  # more than 0: all groups are dealt into this many folds
    fold: int = 0  # the fold that is held out, from 0

    def largest(self, groups: Groups) -> int:
        """Return how many patients are held out at most.

        Raises:
          InputError: There are too few patients or groups for that.
        """
        sizes = sorted(map(len, groups), reverse=True)
        patients = sum(sizes)
        if self.folds > len(groups):
            raise InputError(
                f"config.data.folds is {self.folds}; expected at most {len(groups)}, the number of "
                f"{_kind(groups)}: take fewer folds, or add some"
            )
        if self.folds:
            return sum(sizes[: -(-len(groups) // self.folds)])
        most = patients - sizes[0]  # up to this many, any choice leaves a group to train on
        if not 0 <= self.patients <= most:
            why = (
                f", fewer than the {patients} patients"
                if sizes[0] == 1
                else f": of the {patients} patients {sizes[0]} are pairs made of one scan, which "
                "stay together, and some must be left to train on; hold out fewer, or add pairs "
                "of other scans"
            )
            raise InputError(
                f"config.data.validation_patients is {self.patients}; expected 0 to {most}{why}"
            )
        # At most as many groups are chosen as are needed of the smallest; at worst the largest are.
        needed = sum(held < self.patients for held in accumulate(sizes[::-1], initial=0))
        return sum(sizes[:needed])

    def choose(self, has_lesions: list[bool], groups: Groups) -> Numbers:
        """Return the patients to hold out.

        Args:
          has_lesions: whether each patient has new lesions.

        Raises:
          InputError: There are too few groups, or too few with new lesions for the folds.
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

        Raises:
          InputError: A fold would have no new lesion to be scored by.
        """
        if not self.folds:
            return []
        with_lesions = _any_in(groups, has_lesions)
        if sum(with_lesions) < self.folds:
            raise InputError(
                f"config.data.folds is {self.folds}, and {sum(with_lesions)} of the {len(groups)} "
                f"{_kind(groups)} have new-lesion voxels in ground_truth.nii.gz; expected one in "
                "every fold: take fewer folds, add some, or check the maps"
            )
        dealt = deal_folds(with_lesions, self.folds, self.seed)
        return [_patients(fold, groups) for fold in dealt]


def _kind(groups: Groups) -> str:
    """Return what the groups are, in words for an error."""
    if max(map(len, groups)) == 1:
        return "patients"
    return "scans and patients (pairs made of one scan stay together)"


def _any_in(groups: Groups, has_lesions: list[bool]) -> list[bool]:
    """Return whether each group has a patient with new lesions."""
    return [any(has_lesions[k] for k in group) for group in groups]


def _patients(chosen: set[int], groups: Groups) -> Numbers:
    """Return the patients of the chosen groups."""
    return {k for number in chosen for k in groups[number]}


def choose_validation(has_lesions: list[bool], count: int, seed: int) -> set[int]:
    """Choose `count` groups to hold out, with new lesions in proportion; return their numbers.

    If two or more groups have new lesions, each side gets at least one of them, because without
    new lesions there is nothing to learn and nothing to score. A single one is trained on, if
    there are enough others to hold out.
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
    """Deal all groups into folds; return the numbers of each fold's groups.

    Folds differ by at most one group, and by at most one group with new lesions.
    """
    with_lesions, without = _shuffled(has_lesions, seed)
    dealt = with_lesions + without  # like cards, so that both kinds are even, and so is their sum
    return [set(dealt[fold::folds]) for fold in range(folds)]


def _shuffled(has_lesions: list[bool], seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the groups with and without new lesions, each in random order."""
    generator = np.random.default_rng((seed, len(has_lesions)))
    order = [int(k) for k in generator.permutation(len(has_lesions))]
    return [k for k in order if has_lesions[k]], [k for k in order if not has_lesions[k]]
