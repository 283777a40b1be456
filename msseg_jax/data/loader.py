"""Batches for training, through grain: patches that are cut here, or places to cut them at.

Either way batch k holds the patches k * B to (k + 1) * B - 1 of the run, so a run that goes on
needs nothing but the number of its step. The threads of this process serve: what takes long in
NumPy and SciPy leaves Python's lock alone, and there is nothing to start, to copy between processes
or to clean up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np

from msseg_jax.configuration.sections import AugmentationSettings
from msseg_jax.data.augmentation import cut_augmented, draw_augmentation
from msseg_jax.data.cache import CachedPatient, open_patient
from msseg_jax.data.packing import PACKED_BACKGROUND
from msseg_jax.data.patches import crop, draw_corner, draw_patient


@dataclass(frozen=True)
class Sampling:
    """What decides the patches of a run."""

    seed: int
    patch_size: int  # voxels
    lesion_patch_probability: float
    augmentation: AugmentationSettings | None = None  # of patches that are cut on this machine


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes takes."""

    batch_size: int  # patches of a whole batch; the processes divide it
    process: int = 0
    processes: int = 1

    def patch_ids(self, step: int) -> np.ndarray:
        """Numbers of this process's patches of batch `step`, ascending: (B / processes,) int32."""
        size = self.batch_size // self.processes
        first = step * self.batch_size + self.process * size
        return np.arange(first, first + size, dtype=np.int32)


class Places:
    """Where the patches of a run lie: the draws that every way to load them shares."""

    def __init__(self, patients: list[tuple[str, Path]], sampling: Sampling):
        # Mapped here, before there are threads: np.load parses a header with `ast`, which in
        # Python 3.11.7 can fail when two threads do so at once (cpython issue 106905).
        self._patients = [open_patient(name, folder) for name, folder in patients]
        self.sampling = sampling

    def of(self, patch_id: int) -> tuple[int, tuple[int, int, int]]:
        """(number of the patient, first voxel) of a patch."""
        sampling = self.sampling
        number = draw_patient(sampling.seed, patch_id, len(self._patients))
        patient = self.patient(number)
        corner = draw_corner(
            sampling.seed, patch_id, sampling.patch_size,
            patient.lesion_voxels, patient.brain, sampling.lesion_patch_probability,
        )  # fmt: skip
        return number, corner

    def patient(self, number: int) -> CachedPatient:
        return self._patients[number]


class Batches:
    """This process's share of the `steps` batches of a run, by number: a grain data source."""

    def __init__(self, places: Places, share: Share, steps: int):
        self._places, self._share, self._steps = places, share, steps

    def __len__(self) -> int:
        return self._steps


class PatchBatches(Batches):
    """Batch k of a run as patches cut on this machine.

    An element has images (B, 2, S, S, S) int16 and targets (B, ceil(T / 8), S, S, S) uint8, packed
    as in the cache (`packing`), and patch_ids (B,) int32.
    """

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        patch_ids = self._share.patch_ids(step)
        sampling = self._places.sampling
        size, shape = sampling.patch_size, (sampling.patch_size,) * 3
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
    """Batch k of a run as places, for volumes that the device holds.

    An element has patients (B,) int32, corners (B, 3) int32 and patch_ids (B,) int32.
    """

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        patch_ids = self._share.patch_ids(step)
        numbers, corners = zip(*map(self._places.of, patch_ids.tolist()), strict=True)
        return {
            "patients": np.asarray(numbers, np.int32),
            "corners": np.asarray(corners, np.int32),
            "patch_ids": patch_ids,
        }


def load_batches(source: Batches, first_step: int, threads: int) -> Iterator[dict[str, np.ndarray]]:
    """The batches of a run from `first_step` on, to its end, cut ahead by `threads` threads."""
    batches = grain.MapDataset.source(source)[first_step:]
    # grain's default reads hundreds of elements ahead.
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return iter(batches.to_iter_dataset(read))
