"""How voxels are stored for training: small, so that many fit in memory and travel fast.

Images are whole numbers of STEP in int16, target maps single bits: of a pair with five targets 5
bytes per voxel in place of 13. The functions that unpack serve NumPy's arrays and JAX's alike, to
the same bits.
"""

import numpy as np

from msseg_jax.data.intensity import BACKGROUND

# Standard deviations of the brain. A power of two, so that unpacking is exact everywhere; the
# error of packing is at most half of it, 4.9e-4, and values up to +-32 can be told.
STEP = 2.0**-10
PACKED_BACKGROUND = round(BACKGROUND / STEP)  # what images are padded with
BITS = 8  # target maps in one byte


def pack_images(images: np.ndarray) -> np.ndarray:
    """Normalised intensities to int16; what lies beyond +-32 standard deviations is cut off."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(images / STEP), limits.min, limits.max).astype(np.int16)


def unpack_images(packed):
    """int16 to float32 intensities, exactly."""
    return packed * np.float32(STEP)  # float32; one pass in NumPy, where `astype` is another


def pack_targets(targets: np.ndarray) -> np.ndarray:
    """(T, D, H, W) of 0 and 1 to (ceil(T / 8), D, H, W) uint8: target t is bit t % 8 of t // 8."""
    return np.packbits(targets.astype(bool), axis=0, bitorder="little")


def unpack_target(packed, target: int):
    """(..., ceil(T / 8), D, H, W) uint8 to one target's map, (..., D, H, W) of 0 and 1."""
    return packed[..., target // BITS, :, :, :] >> np.uint8(target % BITS) & np.uint8(1)


def unpack_batch(batch: dict, targets: int) -> dict:
    """A batch as it is loaded to one as the network takes it.

    Args:
      batch: images (B, 2, D, H, W) int16; targets (B, ceil(T / 8), D, H, W) uint8; patch_ids (B,).
      targets: how many, T.

    Returns:
      time01, time02: (B, D, H, W, 1) float32; targets: (B, D, H, W, T) uint8; patch_ids (B,).
    """
    images, packed = unpack_images(batch["images"]), batch["targets"]
    namespace = packed.__array_namespace__()
    maps = [unpack_target(packed, t) for t in range(targets)]
    return {
        "time01": images[:, 0, ..., None],
        "time02": images[:, 1, ..., None],
        # Map by map in memory: NumPy writes side by side several times as fast as interleaved.
        "targets": namespace.moveaxis(namespace.stack(maps, axis=1), 1, -1),
        "patch_ids": batch["patch_ids"],
    }
