"""The trained networks that a path stands for, wherever they lie."""

from pathlib import Path

from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.checkpoints import restore_for_inference
from msseg_jax.models.configuration import check_network
from msseg_jax.models.model_file import About, TrainedNetwork, is_model_file, read_model_file
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import build_model, variable_shapes
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json


def trained_networks(model: Path | str) -> list[TrainedNetwork]:
    """All networks of a model file, or the one of a run's folder.

    Raises:
      InputError: it is neither, or cannot be read.
    """
    if is_model_file(Path(model)):
        return read_model_file(model).networks
    run = RunFolder(model)
    config, preprocessing = run.load()
    try:
        check_network(config)
        shapes = variable_shapes(build_model(config))
    except (AttributeError, KeyError) as error:  # of ml_collections
        name = error.name if isinstance(error, AttributeError) else error.args[0].strip("'")
        raise InputError(
            f"{run.config_file}: is of another version of this program (it lacks {name}); "
            "train the run anew"
        ) from error
    variables, kind, step = restore_for_inference(run, shapes)
    return [
        TrainedNetwork(str(model), config, preprocessing, variables, kind, step, _began_with(run))
    ]


def preprocessings(model: Path) -> list[Preprocessing]:
    """What was fitted for each of these networks. Raises InputError as `trained_networks`."""
    if is_model_file(model):
        return [network.preprocessing for network in read_model_file(model).networks]
    return [RunFolder(model).load()[1]]


def _began_with(run: RunFolder) -> About | None:
    """What the model file says of itself with which a run's training began, if it did with one."""
    if not run.initial_file.is_file():
        return None
    about = read_json(run.initial_file).get("about")
    try:
        return about and About(**about)
    except TypeError as error:
        raise InputError(f"{run.initial_file}: is damaged ({error}); give back a copy") from error
