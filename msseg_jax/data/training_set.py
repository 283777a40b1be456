"""Prepare the patients of an MSSEG-2 folder for training.

They are checked and split, the preprocessing is fitted, and the preprocessed patients are cached.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.configuration.targets import TargetSet
from msseg_jax.data import cache, preprocess
from msseg_jax.data.cache import Entry
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.data.split import FOLDS_NEED, Groups, HoldOut, groups_of
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import Patient, find_patients
from msseg_jax.volumes.masks import is_inside
from msseg_jax.volumes.nifti import read_volume

_NO_LESION = (
    "{}: no training patient has a new-lesion voxel in ground_truth.nii.gz, but at least one is "
    "needed for training. Check the maps, or hold out fewer patients "
    "(config.data.validation_patients)."
)


@dataclass(frozen=True)
class TrainingSet:
    """The patients of a run, as entries of the cache."""

    training: list[Entry]
    validation: list[Entry]  # held out
    split: dict[str, dict[str, str]]  # {'training' or 'validation': {name: digest of its voxels}}
    preprocessing: Preprocessing  # fitted only on the training patients, unless it was given
    folds: list[list[str]]  # names of the patients in every fold; empty: no folds
    held_out_lesions: bool  # whether a held-out patient has new lesions


def find_enough(
    root: Path, targets: int, hold_out: HoldOut, target_set: TargetSet = "raters"
) -> tuple[list[Patient], Groups]:
    """Return the patients of a folder and their groups, without reading any volume.

    Raises:
      InputError: The folder is missing, has too few patients to hold some out, or contains a
        damaged record.
    """
    patients = find_patients(root, targets, "config.data.root", target_set)
    groups = groups_of(patients)
    try:
        hold_out.largest(groups)
    except InputError as error:
        raise InputError(f"{root}: {error}") from error
    return patients, groups


def check_known(root: Path, patients: list[Patient], targets: Iterable[int], field: str) -> None:
    """Check that each of these targets is known for a patient, so that its map can be learned.

    Args:
      targets: numbers of targets.
      field: the field that needs them, with its value, for the message.

    Raises:
      InputError: there is a target that no patient has.
    """
    for k in targets:
        if all(patient.targets[k] in patient.unknown for patient in patients):
            raise InputError(
                f"{root}: {patients[0].targets[k].name} does not exist for any patient to train "
                f"on, but {field}. Add the file to at least one patient, hold out fewer patients, "
                "or change this field."
            )


def check_new_lesions(
    root: Path, patients: list[Patient], groups: Groups, hold_out: HoldOut
) -> None:
    """Check that there are new lesions to train on, before any other volume is read.

    Only the consensus maps are read, until enough of them have a new-lesion voxel. Usually this is
    the first one or two. A map that cannot be read is left to `prepare`, which lists all problems.

    Raises:
      InputError: There are too few patients with new lesions.
    """
    needed = FOLDS_NEED if hold_out.folds else 1
    has_lesions = [False] * len(patients)
    found = 0
    for group in groups:
        for k in group:
            try:
                has_lesions[k] = bool(is_inside(read_volume(patients[k].targets[0]).array).any())
            except InputError:
                return
            if has_lesions[k]:
                found += 1
                break
        if found == needed:
            return
    if hold_out.folds:
        hold_out.all_folds(has_lesions, groups)  # raises
    raise InputError(_NO_LESION.format(root))


def prepare(
    root: Path,
    targets: int,
    settings: PreprocessingSettings,
    hold_out: HoldOut,
    cache_folder: Path,
    given: Preprocessing | None = None,
    target_set: TargetSet = "raters",
) -> TrainingSet:
    """Check a whole folder, hold out patients, fit the preprocessing and fill the cache.

    Args:
      given: preprocessing with the same settings that was fitted elsewhere. None: it is fitted.

    Raises:
      InputError: See `find_enough`. Or no training patient has some target.
      InputError: A patient cannot be used. The message lists every problem of every patient, and
        no patient is preprocessed.
      InputError: The cache cannot be written, or the disk has too little space.
    """
    patients, groups = find_enough(root, targets, hold_out, target_set)
    place = cache.open_cache(cache_folder)
    measures = cache.measure(patients, settings, place)
    has_lesions = [m.lesion_voxels > 0 for m in measures]
    held_out = hold_out.choose(has_lesions, groups)
    if not any(has for k, has in enumerate(has_lesions) if k not in held_out):
        raise InputError(_NO_LESION.format(root))
    taught = [patient for k, patient in enumerate(patients) if k not in held_out]
    check_known(root, taught, range(targets), f"config.model.targets is {targets}")
    preprocessing = given or preprocess.fit(
        [m.histograms for k, m in enumerate(measures) if k not in held_out], settings
    )
    folders = cache.build(patients, measures, preprocessing, place)
    entries = [Entry(p.name, folder) for p, folder in zip(patients, folders, strict=True)]
    training = [k for k in range(len(patients)) if k not in held_out]
    validation = sorted(held_out)
    folds = hold_out.all_folds(has_lesions, groups)
    return TrainingSet(
        training=[entries[k] for k in training],
        validation=[entries[k] for k in validation],
        split={
            side: {patients[k].name: measures[k].digest for k in numbers}
            for side, numbers in (("training", training), ("validation", validation))
        },
        preprocessing=preprocessing,
        folds=[[patients[k].name for k in sorted(fold)] for fold in folds],
        held_out_lesions=any(has_lesions[k] for k in held_out),
    )
