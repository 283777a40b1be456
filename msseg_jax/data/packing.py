"""How voxels are stored for training: small, so that many fit in memory and travel fast.

Images are whole multiples of STEP in int16, and target maps are single bits: 5 bytes per voxel for
a pair with five targets, instead of 13. The functions that unpack take arrays of NumPy and of JAX,
and give the same bits for both.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from msseg_jax.data.intensity import BACKGROUND

if TYPE_CHECKING:
    import jax  # which training data do without

Array = TypeVar("Array", np.ndarray, "jax.Array")

# In standard deviations of the brain. It is a power of two, so that unpacking is exact everywhere.
# The error of packing is at most half of it, 4.9e-4, and the range is +-32.
STEP = 2.0**-10
PACKED_BACKGROUND = round(BACKGROUND / STEP)  # the value with which images are padded
BITS = 8  # target maps in one byte


def pack_images(images: np.ndarray) -> np.ndarray:
    """Return normalised intensities as int16; the range is limited to +-32 standard deviations."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(images / STEP), limits.min, limits.max).astype(np.int16)


def unpack_images(packed: Array) -> Array:
    """Return the float32 intensities of int16 ones, exactly."""
    return packed * np.float32(STEP)  # float32; one pass in NumPy, where `astype` is another


def pack_targets(targets: np.ndarray) -> np.ndarray:
    """Return maps (T, D, H, W) of 0 and 1 as (ceil(T / 8), D, H, W) uint8.

    Target t is bit t % 8 of byte t // 8.
    """
    return np.packbits(targets.astype(bool), axis=0, bitorder="little")


def unpack_target(packed: Array, target: int) -> Array:
    """Return the map of one target, (..., D, H, W) uint8 of 0 and 1.

    Args:
      packed: (..., ceil(T / 8), D, H, W) uint8.
    """
    return packed[..., target // BITS, :, :, :] >> np.uint8(target % BITS) & np.uint8(1)


def unpack_batch(batch: Mapping[str, Array], targets: int) -> dict[str, Array]:
    """Return a loaded batch as the network takes it.

    Args:
      batch: images (B, 2, D, H, W) int16; targets (B, ceil(T / 8), D, H, W) uint8; patch_ids (B,).
      targets: their number, T.

    Returns:
      time01, time02: (B, D, H, W, 1) float32; targets: (B, D, H, W, T) uint8; patch_ids (B,).
    """
    images, packed = unpack_images(batch["images"]), batch["targets"]
    namespace = packed.__array_namespace__()
    maps = [unpack_target(packed, t) for t in range(targets)]
    return {
        "time01": images[:, 0, ..., None],
        "time02": images[:, 1, ..., None],
        # Map by map in memory: NumPy writes this several times as fast as interleaved maps.
        "targets": namespace.moveaxis(namespace.stack(maps, axis=1), 1, -1),
        "patch_ids": batch["patch_ids"],
    }
