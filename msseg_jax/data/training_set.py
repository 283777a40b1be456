"""From an MSSEG-2 folder to patients ready to be sampled: checked, split, fitted, cached."""

from dataclasses import dataclass
from pathlib import Path

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data import cache, preprocess
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.data.split import Groups, HoldOut, groups_of
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import Patient, find_patients


@dataclass(frozen=True)
class TrainingSet:
    """Names and cache folders, and what was fitted on the training patients alone, if not given."""

    training: list[tuple[str, Path]]
    validation: list[tuple[str, Path]]  # held out
    split: dict[str, dict[str, str]]  # {'training' or 'validation': {name: digest of its voxels}}
    preprocessing: Preprocessing
    folds: list[list[str]]  # names of each fold's patients, whichever is held out; empty: no folds


def find_enough(root: Path, targets: int, hold_out: HoldOut) -> tuple[list[Patient], Groups]:
    """The patients of a folder and who of them stay together, which is known at once; to read their
    volumes takes long.

    Raises:
      InputError: no such folder, or too few patients in it to hold some out; a damaged record.
    """
    patients = find_patients(root, targets)
    groups = groups_of(patients)
    try:
        hold_out.largest(groups)
    except InputError as error:
        raise InputError(f"{root}: {error}") from error
    return patients, groups


def prepare(
    root: Path,
    targets: int,
    settings: PreprocessingSettings,
    hold_out: HoldOut,
    cache_folder: Path,
    given: Preprocessing | None = None,
) -> TrainingSet:
    """Check a whole folder, hold patients out, fit the preprocessing and fill the cache.

    Args:
      given: preprocessing by these settings that was fitted elsewhere, and takes that place.

    Raises:
      InputError: as `find_enough`.
      InputError: with every problem of every patient, before anything is preprocessed.
      InputError: the cache cannot be written, or has too little room.
    """
    patients, groups = find_enough(root, targets, hold_out)
    place = cache.open_cache(cache_folder)
    measures = cache.measure(patients, settings, place)
    has_lesions = [m.lesion_voxels > 0 for m in measures]
    held_out = hold_out.choose(has_lesions, groups)
    if not any(has for k, has in enumerate(has_lesions) if k not in held_out):
        raise InputError(
            f"{root}: no training patient has a new-lesion voxel in ground_truth.nii.gz; wanted at "
            "least one to learn from: check the maps, or hold out fewer patients "
            "(config.data.validation_patients)"
        )
    preprocessing = given or preprocess.fit(
        [m.histograms for k, m in enumerate(measures) if k not in held_out], settings
    )
    folders = cache.build(patients, measures, preprocessing, place)
    entries = [(p.name, folder) for p, folder in zip(patients, folders, strict=True)]
    training = [k for k in range(len(patients)) if k not in held_out]
    folds = hold_out.all_folds(has_lesions, groups)
    sides = {"training": training, "validation": sorted(held_out)}
    return TrainingSet(
        [entries[k] for k in sides["training"]],
        [entries[k] for k in sides["validation"]],
        {
            side: {patients[k].name: measures[k].digest for k in numbers}
            for side, numbers in sides.items()
        },
        preprocessing,
        [[patients[k].name for k in sorted(fold)] for fold in folds],
    )
