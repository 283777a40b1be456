"""Apply a network to whole volumes, tile by tile, with one compiled shape."""

import functools
from collections.abc import Callable, Iterable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from msseg_jax.data.intensity import BACKGROUND
from msseg_jax.data.patches import crop
from msseg_jax.inference.tiles import Shape, TileAverage, Tiling, tile_corners
from msseg_jax.network.model import SiameseMPUNet

# Takes (time01, time02), each (B, D, H, W, 1). Returns probability maps, (B, T, D, H, W).
Network = Callable[[np.ndarray, np.ndarray], jax.Array | np.ndarray]
# The same, but takes (model variables, time01, time02).
Forward = Callable[[dict, np.ndarray, np.ndarray], jax.Array]

# Takes the batches of one volume, each a list of tile corners, and yields them one by one.
Progress = Callable[[list[list[Shape]]], Iterable[list[Shape]]]


def no_bar(batches: list[list[Shape]]) -> list[list[Shape]]:
    """Return the batches unchanged. This is a `Progress` that shows no bar."""
    return batches


@functools.cache
def compile_forward(model: SiameseMPUNet, map_count: int = 1) -> Forward:
    """Return the network in inference mode.

    It is compiled once per input shape. The weights are an argument, so others can be used without
    compiling again.

    Args:
      model: the network.
      map_count: how many of its first output maps to return. The first shows the new lesions.
    """

    @jax.jit
    def forward(variables: dict, time01: jax.Array, time02: jax.Array) -> jax.Array:
        # Flax returns a tuple only if variables may change.
        output = cast(jax.Array, model.apply(variables, time01, time02, train=False))
        return jnp.moveaxis(output[..., :map_count], -1, 1)

    return forward


def segment_volume(
    network: Network,
    images: np.ndarray,
    brain: np.ndarray,
    tiling: Tiling,
    progress: Progress = no_bar,
    map_count: int = 1,
) -> np.ndarray:
    """Return the probabilities that a network gives in every voxel of a pair.

    Args:
      network: result of `compile_forward`, bound to its variables.
      images: (2, D, H, W) float32, normalised.
      brain: (D, H, W) bool. Tiles without brain voxels are skipped.
      tiling: sizes of tiles and batches. The last batch is padded with background.
      progress: wraps the list of batches, to show a progress bar.
      map_count: how many maps the network returns.

    Returns:
      (T, D, H, W) float32, averaged where tiles overlap, and 0 outside the brain.
    """
    tile, batch_size = tiling.tile, tiling.batch_size
    corners = [
        corner
        for corner in tile_corners(brain.shape, tile, tiling.overlap)
        if brain[tuple(slice(c, c + side) for c, side in zip(corner, tile, strict=True))].any()
    ]
    average = TileAverage(map_count, brain.shape)
    batches = [corners[k : k + batch_size] for k in range(0, len(corners), batch_size)]
    for batch in progress(batches):
        inputs = np.full((2, batch_size, *tile, 1), BACKGROUND, dtype=np.float32)
        for k, corner in enumerate(batch):
            inputs[:, k, ..., 0] = crop(images, corner, tile, BACKGROUND)
        outputs = np.asarray(network(inputs[0], inputs[1]))
        for output, corner in zip(outputs, batch, strict=False):
            average.add(output, corner)
    probabilities = average.mean()
    probabilities *= brain  # in place, because the maps may be large
    return probabilities
