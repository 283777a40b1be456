"""Choose the options with which several trained networks are applied together."""

from collections.abc import Mapping, Sequence
from typing import Any

from msseg_jax.configuration.options import Options
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.system.errors import InputError

OF_THE_MEAN = ("threshold", "min_lesion_mm3", "min_peak")  # applied to the mean over the networks


def own_options(network: TrainedNetwork) -> Options:
    """Return the options that are stored with a network."""
    return Options(**network.config.predict.model_dump())


def agreed_options(
    networks: Sequence[TrainedNetwork], given: Mapping[str, Any] | None = None
) -> Options:
    """Return the options of the first network, updated with those that are given.

    Args:
      given: fields of `Options`; None means not given.

    Raises:
      InputError: the networks have different values of an option that applies to their mean, and
        it is not given; or a network cannot be applied with the options.
    """
    chosen = {name: value for name, value in (given or {}).items() if value is not None}
    first = own_options(networks[0])
    for name in OF_THE_MEAN:
        for network in networks[1:]:
            own, other = getattr(first, name), getattr(own_options(network), name)
            if name not in chosen and own != other:
                raise InputError(
                    f"{name}: {networks[0].source} has {own:g}, {network.source} has "
                    f"{other:g}. Expected one value, because it applies to the mean of their "
                    f"probabilities. Give a value for {name}."
                )
    options = Options.of(first.model_dump() | chosen, "options")
    for network in networks:
        _check_tiles(network, options)
    return options


def _check_tiles(network: TrainedNetwork, options: Options) -> None:
    """Raise InputError if a network cannot be applied to tiles of this side and overlap."""
    side = network.preprocessing.settings.patch_size
    multiple = network.config.model.side_multiple
    if options.tile is not None and (options.tile < side or options.tile % multiple):
        raise InputError(
            f"tile is {options.tile}; expected {side} (the model's patch size) or more, and a "
            f"multiple of {multiple}, for {network.source}"
        )
    if options.overlap >= side:
        raise InputError(
            f"overlap is {options.overlap}; expected 0 to {side - 1} voxels, less than the patch "
            f"size of {network.source}"
        )
