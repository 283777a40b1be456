"""The trained network with which a new run begins, in place of random weights (`config.init`)."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from msseg_jax.models.configuration import ConfigError, settings_of
from msseg_jax.models.folds import runs_of
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.run_folder import RunFolder

# What changes neither the shapes nor the meaning of trained parameters.
_OWN = ("dropout_rate", "norm_momentum", "initial_probability")


def initial_network(config: ConfigDict, run: RunFolder) -> TrainedNetwork | None:
    """The network with which a run begins; None for random weights, and for a run that has begun:
    that goes on from its own state, whatever has become of the network since.

    Raises:
      ConfigError: there is no such network, or it is no network of this configuration.
      InputError: config.init cannot be read.
    """
    if not config.init or run.begun:
        return None
    networks = [
        network for model in runs_of([Path(config.init)]) for network in trained_networks(model)
    ]
    if config.init_network >= len(networks):
        raise ConfigError(
            f"config.init_network is {config.init_network}; wanted 0 to {len(networks) - 1}, as "
            f"config.init={config.init} holds {len(networks)}"
        )
    network = networks[config.init_network]
    ours, theirs = _must_agree(config), _must_agree(network.config)
    different = [name for name in ours if name not in theirs or ours[name] != theirs[name]]
    if different:
        wanted = {name: theirs.get(name, "no such field") for name in different}
        advice = (
            "start from the configuration that it was trained with "
            "(--config=configs/open_ms.py, of the released weights)"
        )
        if theirs.keys() >= wanted.keys():  # no flag takes a field away
            flags = " ".join(f"--config.{name}={_as_flag(theirs[name])}" for name in different)
            advice += f", or give {flags}"
        raise ConfigError(
            f"config.init={config.init} cannot begin a run of this configuration:\n"
            + "\n".join(f"config.{name} is {ours[name]}; wanted {wanted[name]}" for name in wanted)
            + f"\nas in {network}: {advice}"
        )
    return network


def _must_agree(config: ConfigDict) -> dict[str, object]:
    """Fields in which a run and the network that it begins with may not differ."""
    model = json.loads(json.dumps(config.model.to_dict()))  # tuples become lists, as in files
    settings = settings_of(config)
    return {f"model.{name}": value for name, value in model.items() if name not in _OWN} | {
        "data.spacing_mm": settings.spacing_mm,
        "data.percentiles": list(settings.percentiles),
    }


def _as_flag(value) -> str:
    return f"'({','.join(map(str, value))})'" if isinstance(value, list) else str(value)
