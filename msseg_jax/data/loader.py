"""Load batches for training through grain.

A batch contains either patches that are cut on the host, or positions at which the device cuts
them. In both cases batch k contains the patches k * B to (k + 1) * B - 1 of the run, so a resumed
run needs only the number of its step. Threads of this process do the work, because the slow parts
of NumPy and SciPy release Python's global interpreter lock. Worker processes would have to be
started, sent data and cleaned up.
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

Arrays = dict[str, np.ndarray]  # a batch; the first axis of each array is B


@dataclass(frozen=True)
class Sampling:
    """The settings that determine the patches of a run."""

    seed: int
    patch_size: int  # voxels
    lesion_patch_probability: float
    augmentation: AugmentationSettings | None = None  # only for patches that are cut on the host


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes loads."""

    batch_size: int  # number of patches in a global batch, divided among the processes
    process: int = 0
    processes: int = 1

    def patch_ids(self, step: int) -> np.ndarray:
        """Return the numbers of this process's patches in the batch of a step.

        They are ascending, (B / processes,) int32.
        """
        size = self.batch_size // self.processes
        first = step * self.batch_size + self.process * size
        return np.arange(first, first + size, dtype=np.int32)


class Places:
    """The positions of the patches of a run. They are the same for both ways of loading."""

    def __init__(self, patients: list[Entry], sampling: Sampling):
        # Entries are opened here, before any thread starts. np.load parses a header with `ast`,
        # which can fail in Python 3.11.7 if two threads use it at once (cpython issue 106905).
        self._patients = [open_patient(*entry) for entry in patients]
        self.sampling = sampling

    def of(self, patch_id: int) -> tuple[int, Corner]:
        """Return the number of the patient of a patch, and the first voxel of the patch."""
        sampling = self.sampling
        number = draw_patient(sampling.seed, patch_id, len(self._patients))
        patient = self.patient(number)
        corner = draw_corner(
            sampling.seed, patch_id, sampling.patch_size,
            patient.lesion_kinds, patient.brain, sampling.lesion_patch_probability,
        )  # fmt: skip
        return number, corner

    def patient(self, number: int) -> CachedPatient:
        """Return the arrays of a patient."""
        return self._patients[number]


class Batches(ABC):
    """A data source for grain: for each step, the share of the batch that this process loads."""

    def __init__(self, places: Places, share: Share, steps: int):
        self._places, self._share, self._steps = places, share, steps

    def __len__(self) -> int:
        return self._steps

    @abstractmethod
    def __getitem__(self, step: int) -> Arrays:
        """Return the batch of a step."""


class PatchBatches(Batches):
    """The batches of a run as patches that are cut on the host.

    A batch has images (B, 2, S, S, S) int16 and targets (B, ceil(T / 8), S, S, S) uint8, both
    packed as in the cache (see `packing`), known (B, T) bool, and patch_ids (B,) int32.
    """

    def __getitem__(self, step: int) -> Arrays:
        patch_ids = self._share.patch_ids(step)
        sampling = self._places.sampling
        size = sampling.patch_size
        shape = (size, size, size)
        first = self._places.patient(0)
        maps = len(first.targets)
        images = np.empty((len(patch_ids), 2, *shape), np.int16)
        targets = np.empty((len(patch_ids), maps, *shape), np.uint8)
        known = np.empty((len(patch_ids), len(first.known)), bool)
        for k, patch_id in enumerate(patch_ids.tolist()):
            number, corner = self._places.of(patch_id)
            patient = self._places.patient(number)
            known[k] = patient.known
            if sampling.augmentation is None:
                crop(patient.images, corner, shape, PACKED_BACKGROUND, images[k])
                crop(patient.targets, corner, shape, 0, targets[k])
            else:
                drawn = draw_augmentation(sampling.augmentation, sampling.seed, patch_id)
                images[k], targets[k] = cut_augmented(patient, corner, size, drawn)
        return {"images": images, "targets": targets, "known": known, "patch_ids": patch_ids}


class PlaceBatches(Batches):
    """The batches of a run as positions in volumes that are stored on the device.

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
    """Return an iterator over the batches of a run from `first_step` to its end.

    `threads` threads load batches in advance.
    """
    batches = grain.MapDataset.source(source)[first_step:]
    # By default, grain prefetches hundreds of elements.
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return iter(batches.to_iter_dataset(read))
