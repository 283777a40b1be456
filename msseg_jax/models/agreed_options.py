"""The options with which several trained networks are applied together."""

from collections.abc import Mapping, Sequence
from typing import Any

from msseg_jax.configuration.options import Options
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.system.errors import InputError

OF_THE_MEAN = ("threshold", "min_lesion_mm3")  # applied to the mean, so no network has its own


def own_options(network: TrainedNetwork) -> Options:
    """Return the options that a network was trained with."""
    return Options(**network.config.predict.model_dump())


def agreed_options(
    networks: Sequence[TrainedNetwork], given: Mapping[str, Any] | None = None
) -> Options:
    """Return the first network's own options, changed by those that are given.

    Args:
      given: fields of `Options`; those that are None count as not given.

    Raises:
      InputError: the networks differ where one value serves their mean, or a network cannot work
        with the options.
    """
    chosen = {name: value for name, value in (given or {}).items() if value is not None}
    first = own_options(networks[0])
    for name in OF_THE_MEAN:
        for network in networks[1:]:
            own, other = getattr(first, name), getattr(own_options(network), name)
            if name not in chosen and own != other:
                raise InputError(
                    f"--{name}: {networks[0].source} has {own:g}, {network.source} has "
                    f"{other:g}; expected one value for the mean of their probabilities: give "
                    f"--{name}"
                )
    options = Options.of(first.model_dump() | chosen, "options")
    for network in networks:
        _check_tiles(network, options)
    return options


def _check_tiles(network: TrainedNetwork, options: Options) -> None:
    """Raise InputError for tiles that a network cannot take."""
    side = network.preprocessing.settings.patch_size
    multiple = network.config.model.side_multiple
    if options.tile is not None and (options.tile < side or options.tile % multiple):
        raise InputError(
            f"--tile is {options.tile}; expected {side} (the model's patch size) or more, and a "
            f"multiple of {multiple}, for {network.source}"
        )
    if options.overlap >= side:
        raise InputError(
            f"--overlap is {options.overlap}; expected 0 to {side - 1} voxels, less than the side "
            f"of the patches of {network.source}"
        )
