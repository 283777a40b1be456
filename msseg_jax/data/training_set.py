"""From an MSSEG-2 folder to patients ready to be sampled: checked, split, fitted, cached."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msseg_jax.data import cache, preprocess
from msseg_jax.data.dataset import DatasetError, find_patients
from msseg_jax.data.preprocess import Preprocessing, Settings


@dataclass(frozen=True)
class TrainingSet:
    """Names and cache folders, and what was fitted on the training patients alone."""

    training: list[tuple[str, Path]]
    validation: list[tuple[str, Path]]  # held out
    preprocessing: Preprocessing

    @property
    def split(self) -> dict[str, list[str]]:
        """Names of the patients on each side."""
        return {
            "training": [name for name, _ in self.training],
            "validation": [name for name, _ in self.validation],
        }


def prepare(
    root: Path,
    targets: int,
    settings: Settings,
    validation_patients: int,
    seed: int,
    cache_folder: Path,
) -> TrainingSet:
    """Check a whole folder, hold patients out, fit the preprocessing and fill the cache.

    Raises:
      DatasetError: with every problem of every patient, before anything is preprocessed.
    """
    patients = find_patients(root, targets)
    if not 0 <= validation_patients < len(patients):
        raise DatasetError(
            f"config.data.validation_patients is {validation_patients}; wanted 0 to "
            f"{len(patients) - 1}, as {root} has {len(patients)} patients"
        )
    measures = cache.measure(patients, settings, cache_folder)
    held_out = choose_validation([m.lesion_voxels > 0 for m in measures], validation_patients, seed)
    preprocessing = preprocess.fit(
        [m.histograms for k, m in enumerate(measures) if k not in held_out], settings
    )
    folders = cache.build(patients, preprocessing, cache_folder)
    entries = [(p.name, folder) for p, folder in zip(patients, folders, strict=True)]
    return TrainingSet(
        [entry for k, entry in enumerate(entries) if k not in held_out],
        [entry for k, entry in enumerate(entries) if k in held_out],
        preprocessing,
    )


def choose_validation(has_lesions: list[bool], count: int, seed: int) -> set[int]:
    """Numbers of `count` patients to hold out, with new lesions in proportion."""
    generator = np.random.default_rng((seed, len(has_lesions)))
    order = generator.permutation(len(has_lesions))
    with_lesions = [int(k) for k in order if has_lesions[k]]
    without = [int(k) for k in order if not has_lesions[k]]
    share = round(count * len(with_lesions) / len(has_lesions))
    return set(with_lesions[:share] + without[: count - share])
