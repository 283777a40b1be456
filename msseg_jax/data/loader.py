"""Batches for training, through grain: patches that are cut here, or places where to cut them.

Either way batch k holds the patches k * B to (k + 1) * B - 1 of the run, so a run that continues
needs only the number of its step. The work is done by threads of this process: the slow parts of
NumPy and SciPy release Python's lock, and there is nothing to start, to copy between processes or
to clean up.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import grain
import numpy as np

from msseg_jax.configuration.sections import AugmentationSettings
from msseg_jax.data.augmentation import cut_augmented, draw_augmentation
from msseg_jax.data.cache import CachedPatient, Entry, open_patient
from msseg_jax.data.packing import PACKED_BACKGROUND
from msseg_jax.data.patches import Corner, crop, draw_corner, draw_patient

Arrays = dict[str, np.ndarray]  # a batch: arrays whose first axis is B


@dataclass(frozen=True)
class Sampling:
    """The settings that decide the patches of a run."""

    seed: int
    patch_size: int  # voxels
    lesion_patch_probability: float
    augmentation: AugmentationSettings | None = None  # of patches that are cut on this machine


@dataclass(frozen=True)
class Share:
    """The part of every batch that belongs to one of several processes."""

    batch_size: int  # patches of a whole batch; the processes divide it
    process: int = 0
    processes: int = 1

    def patch_ids(self, step: int) -> np.ndarray:
        """Return the numbers of this process's patches of a batch, ascending.

        (B / processes,) int32
        """
        size = self.batch_size // self.processes
        first = step * self.batch_size + self.process * size
        return np.arange(first, first + size, dtype=np.int32)


class Places:
    """Where the patches of a run lie, in whichever way they are loaded."""

    def __init__(self, patients: list[Entry], sampling: Sampling):
        # Mapped here, before there are threads: np.load parses a header with `ast`, which in
        # Python 3.11.7 can fail when two threads do so at once (cpython issue 106905).
        self._patients = [open_patient(*entry) for entry in patients]
        self.sampling = sampling

    def of(self, patch_id: int) -> tuple[int, Corner]:
        """Return the number of a patch's patient, and the patch's first voxel."""
        sampling = self.sampling
        number = draw_patient(sampling.seed, patch_id, len(self._patients))
        patient = self.patient(number)
        corner = draw_corner(
            sampling.seed, patch_id, sampling.patch_size,
            patient.lesion_voxels, patient.brain, sampling.lesion_patch_probability,
        )  # fmt: skip
        return number, corner

    def patient(self, number: int) -> CachedPatient:
        """Return the arrays of a patient."""
        return self._patients[number]


class Batches(ABC):
    """This process's share of the batches of a run, by number: a data source for grain."""

    def __init__(self, places: Places, share: Share, steps: int):
        self._places, self._share, self._steps = places, share, steps

    def __len__(self) -> int:
        return self._steps

    @abstractmethod
    def __getitem__(self, step: int) -> Arrays:
        """Return the batch of a step."""


class PatchBatches(Batches):
    """The batches of a run as patches that are cut on this machine.

    A batch has images (B, 2, S, S, S) int16 and targets (B, ceil(T / 8), S, S, S) uint8, packed
    as in the cache (`packing`), and patch_ids (B,) int32.
    """

    def __getitem__(self, step: int) -> Arrays:
        patch_ids = self._share.patch_ids(step)
        sampling = self._places.sampling
        size = sampling.patch_size
        shape = (size, size, size)
        maps = len(self._places.patient(0).targets)
        images = np.empty((len(patch_ids), 2, *shape), np.int16)
        targets = np.empty((len(patch_ids), maps, *shape), np.uint8)
        for k, patch_id in enumerate(patch_ids.tolist()):
            number, corner = self._places.of(patch_id)
            patient = self._places.patient(number)
            if sampling.augmentation is None:
                crop(patient.images, corner, shape, PACKED_BACKGROUND, images[k])
                crop(patient.targets, corner, shape, 0, targets[k])
            else:
                drawn = draw_augmentation(sampling.augmentation, sampling.seed, patch_id)
                images[k], targets[k] = cut_augmented(patient, corner, size, drawn)
        return {"images": images, "targets": targets, "patch_ids": patch_ids}


class PlaceBatches(Batches):
    """The batches of a run as places, for volumes that the device holds.

    A batch has patients (B,) int32, corners (B, 3) int32 and patch_ids (B,) int32.
    """

    def __getitem__(self, step: int) -> Arrays:
        patch_ids = self._share.patch_ids(step)
        numbers, corners = zip(*map(self._places.of, patch_ids.tolist()), strict=True)
        return {
            "patients": np.asarray(numbers, np.int32),
            "corners": np.asarray(corners, np.int32),
            "patch_ids": patch_ids,
        }


def load_batches(source: Batches, first_step: int, threads: int) -> Iterator[Arrays]:
    """Return the batches of a run from `first_step` to its end; `threads` threads work ahead."""
    batches = grain.MapDataset.source(source)[first_step:]
    # grain's default reads hundreds of elements ahead.
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return iter(batches.to_iter_dataset(read))
