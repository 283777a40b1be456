"""Who is trained on and who is held out: some of the patients, or one fold of several.

Always whole patients, with new lesions in proportion, and a function of the seed alone.
"""

from dataclasses import dataclass

import numpy as np

from msseg_jax.data.dataset import DatasetError


@dataclass(frozen=True)
class HoldOut:
    """Which patients are not trained on; with neither `patients` nor `folds`, none."""

    seed: int
    patients: int = 0  # so many are held out
    folds: int = 0  # > 0: all patients are dealt into so many folds, and one is held out,
    fold: int = 0  # this one

    def largest(self, patients: int) -> int:
        """How many of so many patients are held out, at most.

        Raises:
          DatasetError: that cannot be done with so few.
        """
        if self.folds > patients:
            raise DatasetError(
                f"config.data.folds is {self.folds}; wanted at most {patients}, the number of "
                "patients"
            )
        if self.folds:
            return -(-patients // self.folds)
        if not 0 <= self.patients < patients:
            raise DatasetError(
                f"config.data.validation_patients is {self.patients}; wanted 0 to {patients - 1}, "
                f"fewer than the {patients} patients"
            )
        return self.patients

    def choose(self, has_lesions: list[bool]) -> set[int]:
        """The numbers of the patients to hold out.

        Raises:
          DatasetError: there are too few patients, or too few with new lesions for the folds.
        """
        self.largest(len(has_lesions))
        if self.folds:
            return self.all_folds(has_lesions)[self.fold]
        return choose_validation(has_lesions, self.patients, self.seed)

    def all_folds(self, has_lesions: list[bool]) -> list[set[int]]:
        """The numbers of each fold's patients; an empty list without folds."""
        return deal_folds(has_lesions, self.folds, self.seed) if self.folds else []


def choose_validation(has_lesions: list[bool], count: int, seed: int) -> set[int]:
    """Numbers of `count` patients to hold out, with new lesions in proportion.

    Of two or more patients with new lesions, each side gets at least one: what has none can be
    neither learnt from nor scored. A single one is trained on, if there are others to hold out.
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
    """Numbers of the patients of each fold: every patient is in one.

    Folds differ by at most one patient in size, and by at most one in patients with new lesions.

    Raises:
      DatasetError: a fold would have no patient with new lesions, and so no lesion to be scored by.
    """
    with_lesions, without = _shuffled(has_lesions, seed)
    if len(with_lesions) < folds:
        raise DatasetError(
            f"config.data.folds is {folds}, and {len(with_lesions)} of the {len(has_lesions)} "
            "patients have new-lesion voxels in ground_truth.nii.gz; wanted one in every fold: "
            "take fewer folds, add patients, or check the maps"
        )
    dealt = with_lesions + without  # like cards, so that both kinds are even, and their sum as well
    return [set(dealt[fold::folds]) for fold in range(folds)]


def _shuffled(has_lesions: list[bool], seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the patients with and without new lesions, each in random order."""
    generator = np.random.default_rng((seed, len(has_lesions)))
    order = [int(k) for k in generator.permutation(len(has_lesions))]
    return [k for k in order if has_lesions[k]], [k for k in order if not has_lesions[k]]
