"""From a configuration to the data of its run: who is held out, what is cached, where it is cut."""

import logging
from dataclasses import replace
from pathlib import Path

import jax
from ml_collections import ConfigDict

from msseg_jax.data.augmentation import AugmentationSettings
from msseg_jax.data.loader import PatchBatches, PlaceBatches, Places, Sampling, Share
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import TrainingSet, prepare
from msseg_jax.models.configuration import settings_of
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.training import processes as parallel
from msseg_jax.training import resident_volumes as device_data
from msseg_jax.training.devices import on_every_device

logger = logging.getLogger(__name__)


def hold_out(config: ConfigDict) -> HoldOut:
    """Which patients a configuration does not train on."""
    data = config.data
    return HoldOut(config.seed, data.validation_patients, data.folds, data.fold)


def augmentation_settings(config: ConfigDict) -> AugmentationSettings | None:
    """What patches are made to differ by; None where augmentation is off."""
    fields = config.augmentation.to_dict()
    if not fields.pop("enabled"):
        return None
    return AugmentationSettings(**fields | {"flip_probability": tuple(fields["flip_probability"])})


def prepare_data(config: ConfigDict, run: RunFolder, initial: TrainedNetwork | None) -> TrainingSet:
    """The patients of config.data.root, checked, split and in the cache.

    Args:
      initial: from `initial_network`.
    """
    cache = Path(config.data.cache_dir or run.path / "cache")
    return prepare(
        Path(config.data.root), config.model.targets, settings_of(config), hold_out(config), cache,
        _given_preprocessing(config, run, initial),
    )  # fmt: skip


def _given_preprocessing(
    config: ConfigDict, run: RunFolder, initial: TrainedNetwork | None
) -> Preprocessing | None:
    """That of the network with which a run begins, as its parameters know no other intensities;
    None where it is to be fitted."""
    if not config.init:
        return None
    if initial is None:  # the run has begun
        return Preprocessing.load(run.preprocessing_file)
    # The patch size is the run's own.
    return replace(initial.preprocessing, settings=settings_of(config))


def training_data(
    config: ConfigDict, data: TrainingSet, steps: int, devices: list
) -> tuple[PatchBatches | PlaceBatches, dict]:
    """This process's batches of the whole run of `steps`, and the volumes on its devices.

    With config.data.device_resident the batches are places and the volumes those of all training
    patients, if the devices have room for them; otherwise the batches are patches, and there are
    no volumes.
    """
    sampling = Sampling(
        config.seed,
        config.data.patch_size,
        config.data.lesion_patch_probability,
        augmentation_settings(config),
    )
    places = Places(data.training, sampling)
    share = Share(config.train.batch_size, jax.process_index(), jax.process_count())
    if config.data.device_resident:
        needed = device_data.volumes_bytes(data.training)
        said = f"device-resident data: {needed / 2**30:.2f} GiB on each device"
        # Where one process lacks room, all must do without: they run the same program.
        if not parallel.any_process(not device_data.fits(needed, devices[0])):
            if parallel.is_main():
                print(said)
            volumes = on_every_device(device_data.read_volumes(data.training), devices)
            return PlaceBatches(places, share, steps), volumes
        logger.warning("%s, and that is more than half of what is free: cut on the host", said)
    return PatchBatches(places, share, steps), {}
