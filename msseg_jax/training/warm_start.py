"""A warm start: a new run begins with a trained network, not with random weights."""

from pathlib import Path

from msseg_jax.configuration.sections import Configuration, TrainedSettings
from msseg_jax.models.folds import runs_of
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.errors import InputError

# What changes neither the shapes nor the meaning of trained parameters.
_FREE = {"dropout_rate", "norm_momentum", "initial_probability"}


def initial_network(config: Configuration, run: RunFolder) -> TrainedNetwork | None:
    """Return the network with which a run begins (`config.init`).

    Returns:
      None for random weights, and for a run that has begun: it continues from its own state, even
      if the network has changed since.

    Raises:
      InputError: there is no such network, it cannot be read, or it does not fit the configuration.
    """
    if not config.init or run.begun:
        return None
    networks = [
        network for model in runs_of([Path(config.init)]) for network in trained_networks(model)
    ]
    if config.init_network >= len(networks):
        raise InputError(
            f"config.init_network is {config.init_network}; expected 0 to {len(networks) - 1}, "
            f"because config.init={config.init} holds {len(networks)}"
        )
    network = networks[config.init_network]
    ours, theirs = _must_agree(config.trained), _must_agree(network.config)
    different = [name for name in ours if ours[name] != theirs[name]]
    if different:
        flags = " ".join(f"--config.{name}={_as_flag(theirs[name])}" for name in different)
        raise InputError(
            f"config.init={config.init} cannot begin a run of this configuration:\n"
            + "\n".join(
                f"config.{name} is {ours[name]}; expected {theirs[name]}" for name in different
            )
            + f"\nas in {network}: start from the configuration that it was trained with "
            f"(--config=open_ms for the released weights), or give {flags}"
        )
    return network


def _must_agree(config: TrainedSettings) -> dict[str, object]:
    """Return the fields in which a run and the network that it begins with may not differ."""
    return {f"model.{name}": value for name, value in config.model if name not in _FREE} | {
        "data.spacing_mm": config.data.spacing_mm,
        "data.percentiles": config.data.percentiles,
    }


def _as_flag(value: object) -> str:
    """Return a value as it is written behind a flag."""
    if not isinstance(value, tuple):
        return str(value)
    return f"'({','.join(f'{number:g}' for number in value)})'"
