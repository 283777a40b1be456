"""Batches of patches for training, through grain."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np

from msseg_jax.data.cache import open_patient
from msseg_jax.data.intensity import BACKGROUND
from msseg_jax.data.patches import crop, draw_corner, draw_patient


@dataclass(frozen=True)
class Sampling:
    """What decides the patches of a run."""

    seed: int
    patch_size: int  # voxels
    lesion_patch_probability: float


class PatchSource:
    """Patch i of a run, for any i from 0: a grain data source.

    It holds names alone and maps the volumes when the first patch is asked for, so that it travels
    to a worker process at no cost.
    """

    def __init__(self, patients: list[tuple[str, Path]], sampling: Sampling, length: int):
        self._entries = patients  # names and cache folders
        self._sampling = sampling
        self._length = length
        self._open = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        sampling, size = self._sampling, self._sampling.patch_size
        shape = (size,) * 3
        patient = self._patient(draw_patient(sampling.seed, index, len(self._entries)))
        corner = draw_corner(
            sampling.seed, index, size,
            patient.lesion_voxels, patient.brain, sampling.lesion_patch_probability,
        )  # fmt: skip
        images = crop(patient.images, corner, shape, BACKGROUND)  # (2, size, size, size)
        targets = crop(patient.targets, corner, shape, 0)  # (T, size, size, size)
        return {
            "time01": images[0, ..., None],
            "time02": images[1, ..., None],
            "targets": np.moveaxis(targets, 0, -1),
            "patch_ids": np.int32(index),
        }

    def _patient(self, number: int):
        if number not in self._open:
            self._open[number] = open_patient(*self._entries[number])
        return self._open[number]

    def __getstate__(self):
        return {**self.__dict__, "_open": {}}  # open maps would be sent as whole arrays


def load_batches(
    source: PatchSource, batch_size: int, first_step: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of a run from `first_step` on, to its end.

    Batch k holds the patches k * batch_size to (k + 1) * batch_size - 1, so a run that goes on
    needs nothing but the number of its step.

    Args:
      workers: processes that cut patches; 0 for threads of this process.

    Yields:
      time01, time02: (B, S, S, S, 1) float32; targets: (B, S, S, S, T) uint8;
      patch_ids: (B,) int32.
    """
    batches = grain.MapDataset.source(source).batch(batch_size, drop_remainder=True)[first_step:]
    # grain's default reads hundreds of elements ahead; two batches hide the cutting of one.
    read = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    dataset = batches.to_iter_dataset(read)
    if not workers:
        return iter(dataset)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return _out_of_shared_memory(iter(dataset.mp_prefetch(options)), len(batches))


def _out_of_shared_memory(batches: Iterator, count: int) -> Iterator:
    """The same batches, copied, so that the workers' shared memory is freed before each is used.

    JAX may keep a batch to the end of the process, whose shared memory Python then calls leaked.
    grain's iterator refers to itself: it needs a collection to be freed after the last batch.
    """
    for number in range(1, count + 1):
        batch = {name: np.array(array) for name, array in next(batches).items()}
        if number == count:
            del batches
            gc.collect()
        yield batch
