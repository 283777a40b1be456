"""Whole volumes through the network, tile by tile, with one compiled shape."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from msseg_jax.data.intensity import BACKGROUND
from msseg_jax.data.patches import crop
from msseg_jax.inference.tiles import TileAverage, tile_corners

# (model variables, time01, time02), each visit (B, D, H, W, 1) -> (B, D, H, W): the consensus'
# probability
Forward = Callable[[dict, np.ndarray, np.ndarray], jax.Array]


@functools.cache
def compile_forward(model) -> Forward:
    """The network in inference mode; compiled once per shape of its input, whatever the weights."""

    @jax.jit
    def forward(variables, time01, time02):
        return model.apply(variables, time01, time02, train=False)[..., 0]  # consensus alone

    return forward


def segment_volume(
    forward: Forward,
    variables: dict,
    images: np.ndarray,
    brain: np.ndarray,
    *,
    tile: tuple[int, int, int],
    overlap: int,
    batch_size: int,
    progress: Callable = lambda batches: batches,
) -> np.ndarray:
    """The probability of new lesion of a whole pair.

    Args:
      forward, variables: the network from `compile_forward`, and its parameters and statistics.
      images: (2, D, H, W) float32, normalised.
      brain: (D, H, W) bool. Tiles without a brain voxel are not computed.
      tile: its shape (voxels), which the network must be able to halve.
      overlap: what neighbouring tiles share, voxels.
      batch_size: tiles per call of `forward`; the last call is filled up with background.
      progress: wraps the list of batches, to show a bar.

    Returns:
      (D, H, W) float32: overlapping tiles averaged, 0 outside the brain.
    """
    corners = [
        corner
        for corner in tile_corners(brain.shape, tile, overlap)
        if brain[tuple(slice(c, c + side) for c, side in zip(corner, tile, strict=True))].any()
    ]
    average = TileAverage(brain.shape)
    batches = [corners[k : k + batch_size] for k in range(0, len(corners), batch_size)]
    for batch in progress(batches):
        inputs = np.full((2, batch_size, *tile, 1), BACKGROUND, dtype=np.float32)
        for k, corner in enumerate(batch):
            inputs[:, k, ..., 0] = crop(images, corner, tile, BACKGROUND)
        outputs = np.asarray(forward(variables, *inputs))
        for output, corner in zip(outputs, batch, strict=False):
            average.add(output, corner)
    return average.mean() * brain
