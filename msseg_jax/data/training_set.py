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
    split: dict[str, dict[str, str]]  # {'training' or 'validation': {name: digest of its voxels}}
    preprocessing: Preprocessing


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
      CacheError: the cache cannot be written, or has too little room.
    """
    place = cache.open_cache(cache_folder)
    patients = find_patients(root, targets)
    if not 0 <= validation_patients < len(patients):
        raise DatasetError(
            f"config.data.validation_patients is {validation_patients}; wanted 0 to "
            f"{len(patients) - 1}, as {root} has {len(patients)} patients"
        )
    measures = cache.measure(patients, settings, place)
    has_lesions = [m.lesion_voxels > 0 for m in measures]
    held_out = choose_validation(has_lesions, validation_patients, seed)
    if not any(has for k, has in enumerate(has_lesions) if k not in held_out):
        raise DatasetError(
            f"{root}: no training patient has a new-lesion voxel in ground_truth.nii.gz; wanted at "
            "least one to learn from: check the maps, or hold out fewer patients "
            "(config.data.validation_patients)"
        )
    preprocessing = preprocess.fit(
        [m.histograms for k, m in enumerate(measures) if k not in held_out], settings
    )
    folders = cache.build(patients, measures, preprocessing, place)
    entries = [(p.name, folder) for p, folder in zip(patients, folders, strict=True)]
    training = [k for k in range(len(patients)) if k not in held_out]
    sides = {"training": training, "validation": sorted(held_out)}
    return TrainingSet(
        [entries[k] for k in sides["training"]],
        [entries[k] for k in sides["validation"]],
        {
            side: {patients[k].name: measures[k].digest for k in numbers}
            for side, numbers in sides.items()
        },
        preprocessing,
    )


def choose_validation(has_lesions: list[bool], count: int, seed: int) -> set[int]:
    """Numbers of `count` patients to hold out, with new lesions in proportion.

    Of two or more patients with new lesions, each side gets at least one: what has none can be
    neither learnt from nor scored. A single one is trained on, if there are others to hold out.
    """
    generator = np.random.default_rng((seed, len(has_lesions)))
    order = generator.permutation(len(has_lesions))
    with_lesions = [int(k) for k in order if has_lesions[k]]
    without = [int(k) for k in order if not has_lesions[k]]
    share = round(count * len(with_lesions) / len(has_lesions))
    if count and len(with_lesions) > 1:
        share = min(max(share, 1), len(with_lesions) - 1)
    elif count <= len(without):
        share = 0
    share = max(share, count - len(without))
    return set(with_lesions[:share] + without[: count - share])
