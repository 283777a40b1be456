"""Preprocessed patients on disk, memory-mapped: read, checked and resampled once, cut ever after.

CACHE/measures-<key>.json         percentiles of one patient's visits, number of new-lesion voxels
CACHE/<patient>-<key>/            images.npy        (2, D, H, W) float32, normalised
                                  targets.npy       (T, D, H, W) uint8
                                  brain.npy         (D, H, W) bool
                                  lesion_voxels.npy (L, 3) int32, where the consensus is 1
                                  affine.npy        (4, 4), voxel indices to scanner mm

A key covers the input files (path, size, time of change) and every setting, so that an entry that
exists is right and has passed the checks. An entry is made beside its place and renamed.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from msseg_jax.data import preprocess
from msseg_jax.data.dataset import DatasetError, Pair, Patient, read_pair
from msseg_jax.data.files import read_json, write_beside
from msseg_jax.data.preprocess import Preprocessing, Settings
from msseg_jax.process import for_each

FORMAT = 3  # raise it when the meaning of an entry changes


@dataclass(frozen=True)
class Measures:
    """What must be known of all patients before the first can be normalised."""

    histograms: tuple[tuple[float, ...], tuple[float, ...]]  # (2, P), intensities by visit
    lesion_voxels: int  # new-lesion voxels of the consensus on the isotropic grid
    digest: str  # of the grid and the voxels of all files, whatever their names and places


@dataclass(frozen=True)
class CachedPatient:
    """The memory-mapped arrays of one patient."""

    name: str
    images: np.ndarray  # (2, D, H, W) float32
    targets: np.ndarray  # (T, D, H, W) uint8
    brain: np.ndarray  # (D, H, W) bool
    lesion_voxels: np.ndarray  # (L, 3) int32
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm


def open_patient(name: str, folder: Path) -> CachedPatient:
    """Map an entry of the cache; nothing is read until it is used."""
    arrays = {
        field: np.load(folder / f"{field}.npy", mmap_mode="r")
        for field in ("images", "targets", "brain", "lesion_voxels", "affine")
    }
    return CachedPatient(name, **arrays)


def measure(patients: list[Patient], settings: Settings, cache: Path) -> list[Measures]:
    """Check and measure every patient, from the cache where that was done before.

    Raises:
      DatasetError: with every problem of every patient in one message.
    """
    work = partial(_measured, settings=settings, cache=cache)
    outcomes = for_each(work, patients, "checking patients")
    problems = [outcome for outcome in outcomes if isinstance(outcome, DatasetError)]
    if problems:
        lines = [line for problem in problems for line in str(problem).split("\n")]
        raise DatasetError(
            f"{len(problems)} of {len(patients)} patients cannot be used:\n"
            + "\n".join(lines)
            + "\nwanted every patient whole, with as many reference maps as config.model.targets "
            f"({len(patients[0].targets)}): mend them, or move their folders away"
        )
    return outcomes


def build(patients: list[Patient], preprocessing: Preprocessing, cache: Path) -> list[Path]:
    """The cache folders of the patients, made where they are missing."""
    work = partial(_built, preprocessing=preprocessing, cache=cache)
    return for_each(work, patients, "preprocessing patients")


def _measured(patient: Patient, settings: Settings, cache: Path) -> Measures | DatasetError:
    entry = cache / f"measures-{_key(patient, settings)}.json"
    if entry.is_file():
        return Measures(**read_json(entry))
    try:
        pair = read_pair(patient)
        resampled = preprocess.resample(patient, pair, settings)
        histograms = preprocess.histograms(patient, resampled, settings)
    except DatasetError as error:
        return error  # returned, not raised, so that all patients' problems come together
    measures = Measures(histograms.tolist(), int(resampled.targets[0].sum()), _digest(pair))
    write_beside(entry, lambda path: path.write_text(json.dumps(asdict(measures))))
    return measures


def _built(patient: Patient, preprocessing: Preprocessing, cache: Path) -> Path:
    entry = cache / f"{patient.name}-{_key(patient, preprocessing)}"
    if entry.is_dir():
        return entry
    resampled = preprocess.resample(patient, read_pair(patient), preprocessing.settings)
    arrays = {
        "images": preprocess.apply(preprocessing, patient, resampled),
        "targets": resampled.targets,
        "brain": resampled.brain,
        "lesion_voxels": np.argwhere(resampled.targets[0]).astype(np.int32),
        "affine": resampled.affine,
    }
    partial_entry = cache / f".partial-{os.getpid()}-{entry.name}"
    shutil.rmtree(partial_entry, ignore_errors=True)
    partial_entry.mkdir()
    try:
        for field, array in arrays.items():
            np.save(partial_entry / f"{field}.npy", array)
        os.replace(partial_entry, entry)
    except OSError:
        if not entry.is_dir():  # otherwise another run was faster, with the same bytes
            raise
    finally:
        shutil.rmtree(partial_entry, ignore_errors=True)
    return entry


def _digest(pair: Pair) -> str:
    digest = hashlib.sha256(repr(pair.brain.shape).encode())
    for array in (
        pair.time01.affine,
        pair.time01.array,
        pair.time02.array,
        pair.brain,
        pair.targets,
    ):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]


def _key(patient: Patient, settings: Settings | Preprocessing) -> str:
    files = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in patient.files
        if path.is_file()  # one that is missing is a problem, for `read_pair` to tell of
    ]
    content = json.dumps([FORMAT, files, asdict(settings)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
