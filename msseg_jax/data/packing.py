"""Pack voxels for training, so that more of them fit in memory and are transferred faster.

Images are stored as multiples of STEP in int16, and target maps as single bits. A pair with five
targets needs 5 bytes per voxel instead of 13. The functions that unpack accept both NumPy and JAX
arrays, and give bit-identical results for both.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from msseg_jax.data.intensity import BACKGROUND

if TYPE_CHECKING:
    import jax  # only for annotations: the data pipeline must not need JAX

Array = TypeVar("Array", np.ndarray, "jax.Array")

# In standard deviations of the brain. A power of two, so that unpacking is exact on any hardware.
# Packing rounds by at most half a step, 4.9e-4, and the range is +-32.
STEP = 2.0**-10
PACKED_BACKGROUND = round(BACKGROUND / STEP)  # packed value that pads images
BITS = 8  # target maps per byte


def pack_images(images: np.ndarray) -> np.ndarray:
    """Return normalised intensities as int16, clipped to +-32 standard deviations."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(images / STEP), limits.min, limits.max).astype(np.int16)


def unpack_images(packed: Array) -> Array:
    """Return packed int16 intensities as float32, without rounding."""
    return packed * np.float32(STEP)  # float32 in one pass; in NumPy, `astype` would be a second


def pack_targets(targets: np.ndarray) -> np.ndarray:
    """Return maps (T, D, H, W) of 0 and 1 as (ceil(T / 8), D, H, W) uint8.

    Target t is bit t % 8 of byte t // 8.
    """
    return np.packbits(targets.astype(bool), axis=0, bitorder="little")


def unpack_target(packed: Array, target: int) -> Array:
    """Return the map of one target, (..., D, H, W) uint8, with values 0 and 1.

    Args:
      packed: (..., ceil(T / 8), D, H, W) uint8.
    """
    return packed[..., target // BITS, :, :, :] >> np.uint8(target % BITS) & np.uint8(1)


def unpack_batch(batch: Mapping[str, Array], targets: int) -> dict[str, Array]:
    """Unpack a loaded batch into the arrays that a training step needs.

    Args:
      batch: images (B, 2, D, H, W) int16; targets (B, ceil(T / 8), D, H, W) uint8; known (B, T)
        bool; patch_ids (B,).
      targets: number of targets to unpack: the first ones.

    Returns:
      time01, time02: (B, D, H, W, 1) float32; targets: (B, D, H, W, targets) uint8; known
      (B, targets) bool; patch_ids (B,).
    """
    images, packed = unpack_images(batch["images"]), batch["targets"]
    namespace = packed.__array_namespace__()
    maps = [unpack_target(packed, t) for t in range(targets)]
    return {
        "time01": images[:, 0, ..., None],
        "time02": images[:, 1, ..., None],
        # Each map is contiguous in memory. NumPy writes this several times as fast as maps that
        # are interleaved.
        "targets": namespace.moveaxis(namespace.stack(maps, axis=1), 1, -1),
        "known": batch["known"][:, :targets],
        "patch_ids": batch["patch_ids"],
    }
