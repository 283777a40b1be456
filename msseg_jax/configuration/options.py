"""The options with which trained networks are applied to a pair."""

from msseg_jax.configuration.section import setting
from msseg_jax.configuration.sections import PredictSettings


class Options(PredictSettings):
    """The prediction settings of a network, and an option that only the command line sets."""

    tile: int | None = setting(
        None, "largest side of a tile, voxels; None: the side of the model's patches", ge=1
    )
