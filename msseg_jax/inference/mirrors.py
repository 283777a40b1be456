"""Average the maps of a network over mirror images of its input.

The brain is nearly symmetric, and the network is not. So a mirrored tile is a second look at the
same tissue.
"""

import math
from itertools import combinations

import numpy as np

from msseg_jax.inference.forward import Network

# The axes of a tile in the canonical order (left-right, front-back, up-down), in the order in which
# more mirror images use them.
AXES = (0, 1, 2)


def mirror_axes(flips: int) -> list[tuple[int, ...]]:
    """Return the axes along which each mirror image is flipped; the first is the tile itself.

    Args:
      flips: the number of mirror images: 1, 2, 4 or 8.
    """
    used = AXES[: int(math.log2(flips))]
    return [axes for count in range(len(used) + 1) for axes in combinations(used, count)]


def mirrored(network: Network, flips: int) -> Network:
    """Return a network that averages its maps over mirror images of both visits.

    Each image has the shape of the tile, so nothing is compiled again.

    Args:
      network: the network.
      flips: the number of mirror images: 1, 2, 4 or 8. With 1, the network is returned unchanged.
    """
    if flips == 1:
        return network

    def average(time01: np.ndarray, time02: np.ndarray) -> np.ndarray:
        total: np.ndarray | float = 0.0
        for axes in mirror_axes(flips):
            of_visit = tuple(1 + axis for axis in axes)  # (B, D, H, W, 1)
            of_maps = tuple(2 + axis for axis in axes)  # (B, T, D, H, W)
            maps = network(np.flip(time01, of_visit), np.flip(time02, of_visit))
            total = total + np.flip(np.asarray(maps), of_maps)
        return np.asarray(total) / np.float32(flips)

    return average
