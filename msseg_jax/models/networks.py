"""Load trained networks from a model file or from the folder of a run."""

from pathlib import Path

from msseg_jax.data.preprocess import Preprocessing
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
    """Return all networks of a model file, or the network of a run.

    Args:
      model: path of a model file, or of the folder of a run.

    Raises:
      InputError: the path is neither of them, or cannot be read.
    """
    if is_model_file(Path(model)):
        return read_model_file(model).networks
    # Imported here because it imports orbax, which takes time and which model files do not need.
    from msseg_jax.models.checkpoints import restore_for_inference

    run = RunFolder(model)
    config, preprocessing = run.load()
    shapes = variable_shapes(SiameseMPUNet(config.model))
    variables, kind, step = restore_for_inference(run, shapes)
    return [
        TrainedNetwork(
            str(model), config.trained, preprocessing, variables, kind, step, started_from(run),
            config.model_dump(mode="json"),
        )
    ]  # fmt: skip


def preprocessings(model: Path) -> list[Preprocessing]:
    """Return the fitted preprocessing of each of the networks that `trained_networks` returns.

    Raises:
      InputError: as in `trained_networks`.
    """
    if is_model_file(model):
        return [network.preprocessing for network in read_model_file(model).networks]
    return [RunFolder(model).load()[1]]


def started_from(run: RunFolder) -> About | None:
    """Return the description of the model file from which a run was started, if there was one."""
    if not run.initial_file.is_file():
        return None
    return Beginning.of(read_json(run.initial_file), str(run.initial_file), complete=True).about
