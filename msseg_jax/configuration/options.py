"""How trained networks are applied to a pair."""

from msseg_jax.configuration.section import setting
from msseg_jax.configuration.sections import PredictSettings


class Options(PredictSettings):
    """The settings of a network for predicting, and what only a command line can choose."""

    tile: int | None = setting(
        None, "largest side of a tile, voxels; None: the model's patch size", ge=1
    )
