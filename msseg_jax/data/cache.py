"""Preprocessed patients on disk, memory-mapped: each is read, checked and resampled only once.

CACHE/format-<n>/measures-<key>.json     what is measured of one patient before any is normalised
CACHE/format-<n>/<patient>-<key>/        images.npy        (2, D, H, W) int16, normalised, packed
                                         targets.npy       (ceil(T / 8), D, H, W) uint8, packed
                                         brain.npy         (D, H, W) bool
                                         lesion_voxels.npy (L, 3) int32, where the consensus is 1
                                         affine.npy        (4, 4), voxel indices to scanner mm

`packing` says what packed means. A key covers the input files (path, size, time of change) and
every setting, so an entry that exists is right and has passed the checks. An entry is made beside
its place and renamed. So runs may share a cache, and a run that is interrupted leaves nothing that
another would take for complete.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from msseg_jax.configuration.section import Section
from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data import preprocess
from msseg_jax.data.packing import BITS, pack_images, pack_targets
from msseg_jax.data.patches import Shape
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.system.atomic import whole_folder, write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.processes import for_each
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair, read_pair

FORMAT = 3  # raise it when the meaning of an entry changes
ABANDONED_S = 3600.0  # to write an entry takes seconds: one this old is of a run that was killed


class Entry(NamedTuple):
    """A patient in the cache."""

    name: str
    folder: Path


class Measures(Section):
    """What must be known of all patients before the first can be normalised."""

    histograms: tuple[tuple[float, ...], tuple[float, ...]]  # (2, P), intensities by visit
    lesion_voxels: int  # new-lesion voxels of the consensus on the isotropic grid
    shape: Shape  # of the isotropic grid, cut to the brain
    digest: str  # of the grid and the voxels of all files, whatever their names and places


@dataclass(frozen=True)
class CachedPatient:
    """The memory-mapped arrays of one patient."""

    name: str
    images: np.ndarray  # (2, D, H, W) int16, packed
    targets: np.ndarray  # (ceil(T / 8), D, H, W) uint8, packed
    brain: np.ndarray  # (D, H, W) bool
    lesion_voxels: np.ndarray  # (L, 3) int32
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm

    @property
    def has_lesions(self) -> bool:
        """Return whether the consensus has a new-lesion voxel."""
        return len(self.lesion_voxels) > 0


def open_patient(name: str, folder: Path) -> CachedPatient:
    """Map an entry of the cache; the voxels are read when they are used.

    Raises:
      InputError: The entry is damaged.
    """
    fields = ("images", "targets", "brain", "lesion_voxels", "affine")
    try:
        return CachedPatient(name, *(np.load(folder / f"{f}.npy", mmap_mode="r") for f in fields))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{folder}: this entry of the cache is damaged ({error}); delete the folder, and run "
            "the same command again to make it anew"
        ) from error


def open_cache(folder: Path) -> Path:
    """Return the place for entries of this format in a cache folder; make it if necessary.

    Raises:
      InputError: The folder cannot be written.
    """
    place = folder / f"format-{FORMAT}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        abandoned = [p for p in place.glob(".partial-*") if _age_s(p) > ABANDONED_S]
    except OSError as error:
        raise InputError(f"{folder}: {error}; expected a folder to write in") from error
    for path in abandoned:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return place


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # its run has just completed it
        return 0.0


def measure(
    patients: list[Patient], settings: PreprocessingSettings, cache: Path
) -> list[Measures]:
    """Check and measure every patient; the cache keeps what was measured before.

    Raises:
      InputError: There are problems; the message holds all of all patients.
    """
    work = partial(_measured, settings=settings, cache=cache)
    order = _own_order(range(len(patients)))
    found = for_each(work, [patients[k] for k in order], "checking patients")
    outcomes = [outcome for _, outcome in sorted(zip(order, found, strict=True), key=itemgetter(0))]
    problems = [outcome for outcome in outcomes if isinstance(outcome, InputError)]
    if problems:
        targets = len(patients[0].targets)
        fewer = "; where there is a consensus only: --config.model.targets=1" * (targets > 1)
        lines = [line for problem in problems for line in str(problem).split("\n")]
        raise InputError(
            f"{len(problems)} of {len(patients)} patients cannot be used:\n"
            + "\n".join(lines)
            + "\nexpected every patient complete, with as many reference maps as "
            f"config.model.targets ({targets}): repair them, or move their folders away{fewer}"
        )
    return [outcome for outcome in outcomes if isinstance(outcome, Measures)]


def build(
    patients: list[Patient], measures: list[Measures], preprocessing: Preprocessing, cache: Path
) -> list[Path]:
    """Return the cache folders of the patients; make those that are missing.

    Raises:
      InputError: The disk has too little room for all that are missing; then none is made.
    """
    entries = [cache / f"{p.name}-{_key(p, preprocessing)}" for p in patients]
    missing = [k for k, entry in enumerate(entries) if not entry.is_dir()]
    if missing:
        needed = sum(_entry_bytes(measures[k], len(patients[k].targets)) for k in missing)
        free = shutil.disk_usage(cache).free
        said = f"{cache}: {len(missing)} patients to preprocess, {needed / 2**30:.2f} GiB on disk"
        if needed > free:
            raise InputError(
                f"{said}, and {free / 2**30:.2f} GiB are free; expected room for them: "
                "free some, or choose another place (--config.data.cache_dir)"
            )
        tqdm.write(said)
    for_each(
        lambda k: _build(patients[k], preprocessing, entries[k]),
        _own_order(missing),
        "preprocessing patients",
    )
    return entries


def _own_order(numbers: Sequence[int]) -> list[int]:
    """Return the numbers in random order, so that runs that start together share the work."""
    return np.random.default_rng().permutation(numbers).astype(int).tolist()


def _entry_bytes(measures: Measures, targets: int) -> int:
    """Return the size of an entry on disk, without the headers of its files."""
    images, maps, brain = 2 * 2, -(-targets // BITS), 1  # bytes per voxel
    return int(np.prod(measures.shape)) * (images + maps + brain) + 12 * measures.lesion_voxels


def _measured(
    patient: Patient, settings: PreprocessingSettings, cache: Path
) -> Measures | InputError:
    entry = cache / f"measures-{_key(patient, settings)}.json"
    if entry.is_file():
        with contextlib.suppress(InputError):  # if it is damaged, it is made again
            return Measures.of(read_json(entry), str(entry))
    try:
        pair = read_pair(patient)
        resampled = preprocess.resample(patient, pair, settings)
        histograms = preprocess.histograms(patient, resampled, settings)
    except InputError as error:
        return error  # returned, not raised, so that all patients' problems come together
    time01, time02 = histograms.tolist()
    depth, height, width = resampled.brain.shape
    measures = Measures(
        histograms=(tuple(time01), tuple(time02)),
        lesion_voxels=int(resampled.targets[0].sum()),
        shape=(depth, height, width),
        digest=_digest(pair),
    )
    write_beside(entry, lambda path: path.write_text(measures.model_dump_json()))
    return measures


def _build(patient: Patient, preprocessing: Preprocessing, entry: Path) -> None:
    if entry.is_dir():
        return
    resampled = preprocess.resample(patient, read_pair(patient), preprocessing.settings)
    arrays = {
        "images": pack_images(preprocess.apply(preprocessing, patient, resampled)),
        "targets": pack_targets(resampled.targets),
        "brain": resampled.brain,
        "lesion_voxels": np.argwhere(resampled.targets[0]).astype(np.int32),
        "affine": resampled.affine,
    }
    try:
        with whole_folder(entry) as new:
            for field, array in arrays.items():
                np.save(new / f"{field}.npy", array)
    except OSError as error:
        if not entry.is_dir():  # otherwise another run was faster, and wrote the same bytes
            raise InputError(
                f"{entry}: cannot be written ({error}); expected room on the disk and the right to "
                "write: what is complete stays, and the same command continues"
            ) from error


def _digest(pair: Pair) -> str:
    """Return the same text for the same grid and voxels."""
    digest = hashlib.sha256(repr(pair.brain.shape).encode())
    for array in (
        pair.time01.affine,
        pair.time01.array,
        pair.time02.array,
        pair.brain,
        pair.targets,
    ):
        digest.update(np.ascontiguousarray(array).ravel().data)
    return digest.hexdigest()[:16]


def _key(patient: Patient, settings: PreprocessingSettings | Preprocessing) -> str:
    """Return the key of a patient's entry: another one for other files or settings."""
    files = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in patient.files
        if path.is_file()  # `read_pair` reports those that are missing
    ]
    content = json.dumps([FORMAT, files, settings.model_dump()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
