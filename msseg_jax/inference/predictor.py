"""Segment a pair with one trained network and its preprocessing."""

import math
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.data import preprocess
from msseg_jax.data.preprocess import Resampled
from msseg_jax.inference.forward import Progress, compile_forward, no_bar, segment_volume
from msseg_jax.inference.mirrors import mirrored
from msseg_jax.inference.tiles import Shape, Tiling, fit_tile, tile_corners
from msseg_jax.models.agreed_options import own_options
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.network.model import SiameseMPUNet
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair


class Predictor:
    """A trained network with its preprocessing. It is compiled once per shape of the tiles."""

    def __init__(self, network: TrainedNetwork):
        self.network = network
        self.config, self.preprocessing = network.config, network.preprocessing
        model = SiameseMPUNet(self.config.model)
        self.side_multiple = model.side_multiple
        self._variables = jax.device_put(network.variables, jax.local_devices()[0])
        self.map_count = self.config.model.predicted_maps
        self._forward = compile_forward(model, self.map_count)

    def __str__(self) -> str:
        return str(self.network)

    @property
    def options(self) -> Options:
        """The options that are stored with the network."""
        return own_options(self.network)

    def segment(
        self,
        patient: Patient,
        pair: Pair,
        resampled: Resampled,
        options: Options,
        progress: Progress = no_bar,
    ) -> Iterator[np.ndarray]:
        """Yield the maps of the network on the grid of the pair; first, that of the new lesions.

        They are brought to this grid one by one, because it may be large.

        Args:
          patient: paths of the pair, for error messages.
          pair: the pair on its own grid.
          resampled: the pair, resampled with this network's settings.
          options: options of the prediction.
          progress: wraps the list of batches, to show a progress bar.

        Yields:
          The probability that each map shows, (D, H, W) float32, 0 outside the brain.

        Raises:
          InputError: a visit is constant inside the brain.
        """
        images = preprocess.apply(self.preprocessing, patient, resampled)
        tiling = self._tiling(resampled.brain.shape, options)
        network = mirrored(partial(self._forward, self._variables), options.flips)
        maps = segment_volume(network, images, resampled.brain, tiling, progress, self.map_count)
        for probability in maps:
            yield resampled.to_file_grid(probability) * pair.brain

    def _tiling(self, shape: Shape, options: Options) -> Tiling:
        """Return how to cut a volume into tiles and batches.

        If tiles are larger than patches, batches have fewer tiles, so that a batch has at most as
        many voxels as a batch of patches (or a single tile).
        """
        patch_size = self.preprocessing.settings.patch_size
        if options.tile is None:
            patch = (patch_size, patch_size, patch_size)
            return Tiling(patch, options.overlap, options.batch_size)
        tile = fit_tile(shape, options.tile, options.overlap, self.side_multiple)
        limit = options.batch_size * patch_size**3 // math.prod(tile)
        tiles = len(tile_corners(shape, tile, options.overlap))
        return Tiling(tile, options.overlap, min(max(1, limit), tiles))
