"""Training volumes in device memory, and patches that are cut from them inside the step."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from msseg_jax.data.cache import Entry, open_patient
from msseg_jax.data.packing import PACKED_BACKGROUND

SPARE = 0.5  # share of a device's free memory that is left for the network


class Layout(NamedTuple):
    """Shape and type of an array."""

    shape: tuple[int, ...]
    dtype: type[np.generic]


def volumes_bytes(patients: list[Entry]) -> int:
    """Return the device memory that `read_volumes` of these patients takes."""
    return sum(
        np.prod(shape, dtype=np.int64).item() * np.dtype(dtype).itemsize
        for shape, dtype in _layout(patients).values()
    )


def fits(needed_bytes: int, device: jax.Device) -> bool:
    """Return whether `needed_bytes` fit on a device, with the share SPARE left for the network.

    A device that does not report its memory counts as large enough.
    """
    free = free_bytes(device)
    return free is None or needed_bytes <= (1 - SPARE) * free


def free_bytes(device: jax.Device) -> int | None:
    """Return the free memory of a device in bytes, or None if it does not report it (a CPU)."""
    stats = device.memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats else None


def read_volumes(patients: list[Entry]) -> dict[str, np.ndarray]:
    """Read the volumes of all patients, packed as in the cache, padded to the largest one.

    Returns:
      images: (N, 2, D, H, W) int16; targets: (N, ceil(T / 8), D, H, W) uint8; known: (N, T) bool;
      shapes: (N, 3) int32, the size of each patient's volume without padding, voxels.
    """
    volumes: dict[str, np.ndarray] = {
        name: np.zeros(shape, dtype) for name, (shape, dtype) in _layout(patients).items()
    }
    for k, entry in enumerate(tqdm(patients, "reading the cache", disable=None, leave=False)):
        patient = open_patient(*entry)
        d, h, w = patient.brain.shape
        volumes["images"][k, :, :d, :h, :w] = patient.images
        volumes["targets"][k, :, :d, :h, :w] = patient.targets
        volumes["known"][k] = patient.known
        volumes["shapes"][k] = d, h, w
    return volumes


def _layout(patients: list[Entry]) -> dict[str, Layout]:
    """Return the layout of each array of `read_volumes`."""
    opened = [open_patient(*entry) for entry in patients]
    largest = tuple(np.max([patient.brain.shape for patient in opened], axis=0).tolist())
    count, maps = len(patients), len(opened[0].targets)
    return {
        "images": Layout((count, 2, *largest), np.int16),
        "targets": Layout((count, maps, *largest), np.uint8),
        "known": Layout((count, len(opened[0].known)), np.bool_),
        "shapes": Layout((count, 3), np.int32),
    }


def cut(
    volumes: Mapping[str, jax.Array], batch: Mapping[str, jax.Array], patch_size: int
) -> dict[str, jax.Array]:
    """Cut patches at the positions in a batch. They are bit-identical to those of `PatchBatches`.

    Args:
      volumes: from `read_volumes`.
      batch: patients (B,) int32; corners (B, 3) int32, which may lie outside the
        volume; patch_ids (B,).

    Returns:
      images (B, 2, S, S, S) int16, targets (B, ceil(T / 8), S, S, S) uint8, known (B, T) bool,
      patch_ids (B,).
    """

    def cut_one(patient: jax.Array, corner: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = volumes["shapes"][patient]
        steps = jnp.arange(patch_size, dtype=jnp.int32)
        places = [corner[axis] + steps for axis in range(3)]
        d, h, w = jnp.meshgrid(*places, indexing="ij", sparse=True)
        inside_d, inside_h, inside_w = (
            (index >= 0) & (index < side) for index, side in zip((d, h, w), shape, strict=True)
        )
        inside = inside_d & inside_h & inside_w  # (S, S, S)

        def crop(array: jax.Array, fill: int) -> jax.Array:
            # Indices outside the array are clipped. The values read there are replaced below.
            voxels = array.at[patient, :, d, h, w].get(mode="clip")  # (S, S, S, maps)
            voxels = jnp.where(inside[..., None], voxels, jnp.asarray(fill, array.dtype))
            return jnp.moveaxis(voxels, -1, 0)

        return crop(volumes["images"], PACKED_BACKGROUND), crop(volumes["targets"], 0)

    images, targets = jax.vmap(cut_one)(batch["patients"], batch["corners"])
    return {
        "images": images,
        "targets": targets,
        "known": volumes["known"][batch["patients"]],
        "patch_ids": batch["patch_ids"],
    }
