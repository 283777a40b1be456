"""The trained networks that a path stands for, wherever they lie."""

from pathlib import Path

from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.checkpoints import restore_for_inference
from msseg_jax.models.model_file import (
    About,
    Beginning,
    TrainedNetwork,
    is_model_file,
    read_model_file,
)
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import SiameseMPUNet, variable_shapes
from msseg_jax.system.json_files import read_json


def trained_networks(model: Path | str) -> list[TrainedNetwork]:
    """Return all networks of a model file, or the one of a run's folder.

    Raises:
      InputError: it is neither, or cannot be read.
    """
    if is_model_file(Path(model)):
        return read_model_file(model).networks
    run = RunFolder(model)
    config, preprocessing = run.load()
    shapes = variable_shapes(SiameseMPUNet(config.model))
    variables, kind, step = restore_for_inference(run, shapes)
    return [
        TrainedNetwork(
            str(model), config.trained, preprocessing, variables, kind, step, _began_with(run),
            config.model_dump(mode="json"),
        )
    ]  # fmt: skip


def preprocessings(model: Path) -> list[Preprocessing]:
    """Return what was fitted for each of these networks. Raises as `trained_networks` does."""
    if is_model_file(model):
        return [network.preprocessing for network in read_model_file(model).networks]
    return [RunFolder(model).load()[1]]


def _began_with(run: RunFolder) -> About | None:
    """Return what the model file says of itself with which a run began, if it began with one."""
    if not run.initial_file.is_file():
        return None
    return Beginning.of(read_json(run.initial_file), str(run.initial_file), complete=True).about
