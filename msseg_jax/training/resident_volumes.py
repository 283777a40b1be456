"""Training volumes in the device's memory, and patches cut from them inside the step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from msseg_jax.data.cache import open_patient
from msseg_jax.data.packing import PACKED_BACKGROUND

SPARE = 0.5  # share of a device's free memory that is left to the network


def volumes_bytes(patients: list[tuple[str, Path]]) -> int:
    """Device memory that `read_volumes` of these patients takes."""
    return sum(
        np.prod(shape, dtype=np.int64).item() * np.dtype(dtype).itemsize
        for shape, dtype in _layout(patients).values()
    )


def fits(needed_bytes: int, device: jax.Device) -> bool:
    """Whether a device has room for that much beside the network, as far as it tells."""
    free = free_bytes(device)
    return free is None or needed_bytes <= (1 - SPARE) * free


def free_bytes(device: jax.Device) -> int | None:
    """Memory that the device has left; None where it does not say, as on a CPU."""
    stats = device.memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats else None


def read_volumes(patients: list[tuple[str, Path]]) -> dict[str, np.ndarray]:
    """All patients' volumes, packed as in the cache, in arrays of the largest one's sides.

    Returns:
      images: (N, 2, D, H, W) int16; targets: (N, ceil(T / 8), D, H, W) uint8; shapes: (N, 3)
      int32, the part of it that is a patient's own.
    """
    volumes = {name: np.zeros(*layout) for name, layout in _layout(patients).items()}
    for k, entry in enumerate(tqdm(patients, "reading the cache", disable=None, leave=False)):
        patient = open_patient(*entry)
        inside = tuple(slice(side) for side in patient.brain.shape)
        volumes["images"][k, :, *inside] = patient.images
        volumes["targets"][k, :, *inside] = patient.targets
        volumes["shapes"][k] = patient.brain.shape
    return volumes


def _layout(patients: list[tuple[str, Path]]) -> dict[str, tuple[tuple[int, ...], type]]:
    """(shape, type) of the arrays."""
    opened = [open_patient(*entry) for entry in patients]
    largest = tuple(np.max([patient.brain.shape for patient in opened], axis=0).tolist())
    count, maps = len(patients), len(opened[0].targets)
    return {
        "images": ((count, 2, *largest), np.int16),
        "targets": ((count, maps, *largest), np.uint8),
        "shapes": ((count, 3), np.int32),
    }


def cut(volumes: dict, batch: dict, patch_size: int) -> dict:
    """The patches of a batch of places: what `PatchBatches` gives, to the bit.

    Args:
      volumes: from `read_volumes`.
      batch: patients (B,) int32; corners (B, 3) int32, which may lie outside; patch_ids (B,).

    Returns:
      images (B, 2, S, S, S) int16, targets (B, ceil(T / 8), S, S, S) uint8, patch_ids (B,).
    """

    def cut_one(patient, corner):
        shape = volumes["shapes"][patient]
        steps = jnp.arange(patch_size, dtype=jnp.int32)
        places = [corner[axis] + steps for axis in range(3)]
        d, h, w = jnp.meshgrid(*places, indexing="ij", sparse=True)
        inside = True
        for index, side in zip((d, h, w), shape, strict=True):
            inside &= (index >= 0) & (index < side)

        def of(array, fill):
            # Indices off the array are clipped, and what they fetch is replaced.
            voxels = array.at[patient, :, d, h, w].get(mode="clip")  # (S, S, S, maps)
            voxels = jnp.where(inside[..., None], voxels, jnp.asarray(fill, array.dtype))
            return jnp.moveaxis(voxels, -1, 0)

        return of(volumes["images"], PACKED_BACKGROUND), of(volumes["targets"], 0)

    images, targets = jax.vmap(cut_one)(batch["patients"], batch["corners"])
    return {"images": images, "targets": targets, "patch_ids": batch["patch_ids"]}
