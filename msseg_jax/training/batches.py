"""Prepare the data of a run: split the patients, fill the cache, and make the batches."""

import logging
from pathlib import Path
from typing import Any

import jax

from msseg_jax.configuration.sections import Configuration
from msseg_jax.configuration.targets import LESIONS01, LESIONS02
from msseg_jax.data.loader import PatchBatches, PlaceBatches, Places, Sampling, Share
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import (
    TrainingSet,
    check_known,
    check_new_lesions,
    find_enough,
    prepare,
)
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.training import processes, resident_volumes
from msseg_jax.training.devices import on_every_device
from msseg_jax.training.schedule import Schedule

logger = logging.getLogger(__name__)


def hold_out(config: Configuration) -> HoldOut:
    """Return the rule by which a configuration holds out patients."""
    data = config.data
    return HoldOut(config.seed, data.validation_patients, data.folds, data.fold)


def check_patients(config: Configuration) -> None:
    """Raise InputError if there are too few patients for the split, for one epoch, or with lesions.

    Call this before phantoms are made and before scans are read.
    """
    data, held_out = config.data, hold_out(config)
    if data.phantom_patients:
        groups = [[k] for k in range(data.phantom_patients)]
    else:
        root = Path(data.root)
        model = config.model
        found, groups = find_enough(root, model.targets, held_out, model.target_set)
    patients = sum(map(len, groups)) - held_out.largest(groups)
    Schedule.of(config.train, data.patches_per_patient, patients)
    if not data.phantom_patients:
        check_known(root, found, range(model.targets), f"config.model.targets is {model.targets}")
        if weight := config.train.decoder_weight:
            needed = f"config.train.decoder_weight is {weight:g}"
            check_known(root, found, (LESIONS01, LESIONS02), needed)
        check_new_lesions(root, found, groups, held_out)


def prepare_data(
    config: Configuration, run: RunFolder, initial: TrainedNetwork | None
) -> TrainingSet:
    """Check, split and cache the patients of config.data.root, and return them.

    Args:
      initial: result of `initial_network`.
    """
    cache = Path(config.data.cache_dir or run.path / "cache")
    return prepare(
        Path(config.data.root), config.model.targets, config.data.preprocessing, hold_out(config),
        cache, _given_preprocessing(config, run, initial), config.model.target_set,
    )  # fmt: skip


def _given_preprocessing(
    config: Configuration, run: RunFolder, initial: TrainedNetwork | None
) -> Preprocessing | None:
    """Return the preprocessing that a run must use, or None if it has to be fitted.

    A run that starts from a trained network reuses the intensity landmarks of that network, because
    the weights depend on them.
    """
    if not config.init:
        return None
    if initial is None:  # the run exists and has stored its preprocessing
        return Preprocessing.load(run.preprocessing_file)
    # The landmarks come from the network. The patch size may differ from that of the network.
    return initial.preprocessing.model_copy(update={"settings": config.data.preprocessing})


def training_batches(
    config: Configuration, data: TrainingSet, steps: int, devices: list[jax.Device]
) -> tuple[PatchBatches | PlaceBatches, dict[str, Any]]:
    """Return this process's batches of the whole run, and the volumes on its devices.

    If config.data.device_resident is set and the devices have enough free memory, they hold the
    volumes of all training patients, and a batch only contains the places at which patches are
    cut. If not, a batch contains the patches, and the dictionary of volumes is empty.

    Args:
      steps: number of steps of the run.
    """
    sampling = Sampling(
        config.seed,
        config.data.patch_size,
        config.data.lesion_patch_probability,
        config.augmentation if config.augmentation.enabled else None,
    )
    places = Places(data.training, sampling)
    share = Share(config.train.batch_size, jax.process_index(), jax.process_count())
    if config.data.device_resident:
        needed = resident_volumes.volumes_bytes(data.training)
        summary = f"device-resident data: {needed / 2**30:.2f} GiB on each device"
        # All processes run the same program. If one lacks memory, all must cut on the host.
        if not processes.any_process(not resident_volumes.fits(needed, devices[0])):
            if processes.is_main():
                print(summary)
            volumes = on_every_device(resident_volumes.read_volumes(data.training), devices)
            return PlaceBatches(places, share, steps), volumes
        logger.warning(
            "%s. This is more than half of the free memory, so patches are cut on the host.",
            summary,
        )
    return PatchBatches(places, share, steps), {}
