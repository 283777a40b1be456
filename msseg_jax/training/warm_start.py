"""Warm start: a new run starts from a trained network instead of random weights.

If the network has other output maps than the run, the parts of its output layer that give those
maps are replaced.
"""

from pathlib import Path

import numpy as np

from msseg_jax.configuration.sections import Configuration, TrainedSettings
from msseg_jax.models.folds import runs_of
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import SiameseMPUNet, Variables, initial_variables
from msseg_jax.system.errors import InputError

# Fields that may differ: they change neither the shapes nor the meaning of trained parameters.
_FREE = {"dropout_rate", "norm_momentum", "initial_probability"}
# Fields on which only the output layer depends.
_OF_OUTPUT = {"targets", "target_set"}


def initial_network(config: Configuration, run: RunFolder) -> TrainedNetwork | None:
    """Return the network from which a run starts (`config.init`).

    Returns:
      None for random weights. Also None for a run that exists already: it continues from its own
      state, even if the network has changed since.

    Raises:
      InputError: the network does not exist, cannot be read, or does not fit the configuration.
    """
    if not config.init or run.begun:
        return None
    networks = [
        network for model in runs_of([Path(config.init)]) for network in trained_networks(model)
    ]
    if config.init_network >= len(networks):
        raise InputError(
            f"config.init_network is {config.init_network}, but the number of networks in "
            f"config.init={config.init} is {len(networks)}. Use 0 to {len(networks) - 1}."
        )
    network = networks[config.init_network]
    ours, theirs = _must_agree(config.trained), _must_agree(network.config)
    different = [name for name in ours if ours[name] != theirs[name]]
    if different:
        flags = " ".join(f"--config.{name}={_as_flag(theirs[name])}" for name in different)
        raise InputError(
            f"config.init={config.init} does not fit this configuration:\n"
            + "\n".join(
                f"config.{name} is {ours[name]}; expected {theirs[name]}" for name in different
            )
            + f"\nThe expected values are those of {network}. Start from the configuration that it "
            f"was trained with (--config=changes for the released weights), or give {flags}"
        )
    return network


def count_common_maps(config: Configuration, network: TrainedNetwork) -> int:
    """Return how many output maps of the run show the same as those of the network.

    These are the first ones. The first map of every set shows the new lesions.
    """
    same_set = config.model.target_set == network.config.model.target_set
    return min(config.model.targets, network.config.model.targets) if same_set else 1


def begin_with(config: Configuration, network: TrainedNetwork) -> Variables:
    """Return the variables with which a run starts: those of a network that fits it.

    Maps that the network does not have start as those of an untrained network.
    """
    common = count_common_maps(config, network)
    if common == config.model.targets == network.config.model.targets:
        return network.variables
    fresh = initial_variables(SiameseMPUNet(config.model), config.seed)
    untrained = fresh["params"]["refinement"]["output"]
    params = network.variables["params"]
    output = {
        name: np.concatenate([array[..., :common], untrained[name][..., common:]], axis=-1)
        for name, array in params["refinement"]["output"].items()
    }
    refinement = params["refinement"] | {"output": output}
    return network.variables | {"params": params | {"refinement": refinement}}


def _must_agree(config: TrainedSettings) -> dict[str, object]:
    """Return the fields that must be the same in a run and in the network it starts from."""
    ignored = _FREE | _OF_OUTPUT
    return {f"model.{name}": value for name, value in config.model if name not in ignored} | {
        "data.spacing_mm": config.data.spacing_mm,
        "data.percentiles": config.data.percentiles,
    }


def _as_flag(value: object) -> str:
    """Format a value as it is written after a flag."""
    if not isinstance(value, tuple):
        return str(value)
    return f"'({','.join(f'{number:g}' for number in value)})'"
