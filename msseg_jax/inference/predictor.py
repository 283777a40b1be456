"""One trained network, ready to segment, with its preprocessing and its options."""

import math
from typing import TYPE_CHECKING

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.data import preprocess
from msseg_jax.data.preprocess import Resampled
from msseg_jax.inference.tiles import fit_tile, tile_corners
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair

if TYPE_CHECKING:
    from msseg_jax.models.model_file import TrainedNetwork  # which imports JAX


class Predictor:
    """A trained network with its preprocessing; compiled once per shape of its tiles."""

    def __init__(self, network: "TrainedNetwork"):
        # JAX starts its threads when it is imported, so `--threads` must be set before.
        import jax

        from msseg_jax.inference.forward import compile_forward
        from msseg_jax.network.model import build_model

        self.network = network
        self.config, self.preprocessing = network.config, network.preprocessing
        model = build_model(self.config)
        self.side_multiple = model.side_multiple
        self._variables = jax.device_put(network.variables, jax.local_devices()[0])
        self._forward = compile_forward(model)

    def __str__(self) -> str:
        return str(self.network)

    @property
    def options(self) -> Options:
        """The network's own."""
        return Options(**self.config.predict.to_dict())

    def segment(
        self,
        patient: Patient,
        pair: Pair,
        resampled: Resampled,
        options: Options,
        progress=lambda batches: batches,
    ) -> np.ndarray:
        """Probability of new lesion on the pair's own grid: (D, H, W) float32, 0 off the brain.

        Args:
          resampled: the pair, by this network's settings.

        Raises:
          InputError: a visit is constant inside the brain.
        """
        from msseg_jax.inference.forward import segment_volume

        tile, batch_size = self._tiles(resampled.brain.shape, options)
        images = preprocess.apply(self.preprocessing, patient, resampled)
        probability = segment_volume(
            self._forward, self._variables, images, resampled.brain,
            tile=tile, overlap=options.overlap, batch_size=batch_size, progress=progress,
        )  # fmt: skip
        return resampled.to_file_grid(probability) * pair.brain

    def _tiles(self, shape: tuple[int, int, int], options: Options) -> tuple[tuple, int]:
        """Shape of a tile, and how many of them hold as many voxels as a batch of patches."""
        patch_size = self.preprocessing.settings.patch_size
        if options.tile is None:
            return (patch_size,) * 3, options.batch_size
        tile = fit_tile(shape, options.tile, options.overlap, self.side_multiple)
        as_many_voxels = options.batch_size * patch_size**3 // math.prod(tile)
        there_are = len(tile_corners(shape, tile, options.overlap))
        return tile, min(max(1, as_many_voxels), there_are)
