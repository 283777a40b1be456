"""Preprocessed patients on disk, memory-mapped: read, checked and resampled once, cut ever after.

CACHE/format-<n>/measures-<key>.json     what is measured of one patient before any is normalised
CACHE/format-<n>/<patient>-<key>/        images.npy        (2, D, H, W) int16, normalised, packed
                                         targets.npy       (ceil(T / 8), D, H, W) uint8, packed
                                         brain.npy         (D, H, W) bool
                                         lesion_voxels.npy (L, 3) int32, where the consensus is 1
                                         affine.npy        (4, 4), voxel indices to scanner mm

`packing` says what packed means. A key covers the input files (path, size, time of change) and
every setting, so that an entry that exists is right and has passed the checks. An entry is made
beside its place and renamed: runs may share a cache, and one that is interrupted leaves nothing
that another would take for whole.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from msseg_jax.configuration.section import Section
from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data import preprocess
from msseg_jax.data.packing import BITS, pack_images, pack_targets
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.system.atomic import whole_folder, write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.processes import for_each
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair, read_pair

FORMAT = 3  # raise it when the meaning of an entry changes
ABANDONED_S = 3600.0  # a partial entry this old is of a run that was killed: it takes seconds

logger = logging.getLogger(__name__)


class Measures(Section):
    """What must be known of all patients before the first can be normalised."""

    histograms: tuple[tuple[float, ...], tuple[float, ...]]  # (2, P), intensities by visit
    lesion_voxels: int  # new-lesion voxels of the consensus on the isotropic grid
    shape: tuple[int, int, int]  # of the isotropic grid, cut to the brain
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
        """Whether there is a new-lesion voxel in the consensus."""
        return len(self.lesion_voxels) > 0


def open_patient(name: str, folder: Path) -> CachedPatient:
    """Map an entry of the cache; nothing is read until it is used.

    Raises:
      InputError: the entry is damaged.
    """
    fields = ("images", "targets", "brain", "lesion_voxels", "affine")
    try:
        return CachedPatient(name, *(np.load(folder / f"{f}.npy", mmap_mode="r") for f in fields))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{folder}: this entry of the cache is damaged ({error}); delete the folder, and it is "
            "made again"
        ) from error


def open_cache(folder: Path) -> Path:
    """The place in a cache folder for entries of this version's format, made if need be.

    Entries of another format are never read; that they are there is said, as they take room.

    Raises:
      InputError: the folder cannot be written.
    """
    place = folder / f"format-{FORMAT}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        others = [p for p in folder.iterdir() if p.name.startswith("format-")]
        abandoned = [p for p in place.glob(".partial-*") if _age_s(p) > ABANDONED_S]
    except OSError as error:
        raise InputError(f"{folder}: {error}; wanted a folder to write in") from error
    if any(other.name != place.name for other in others):
        logger.warning(
            "%s also holds a cache of another version of this program, which is not used: what is "
            "not in %s may be deleted", folder, place.name,
        )  # fmt: skip
    for path in abandoned:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return place


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # its run has just finished it
        return 0.0


def measure(
    patients: list[Patient], settings: PreprocessingSettings, cache: Path
) -> list[Measures]:
    """Check and measure every patient, from the cache where that was done before.

    Raises:
      InputError: with every problem of every patient in one message.
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
            + "\nwanted every patient whole, with as many reference maps as config.model.targets "
            f"({targets}): mend them, or move their folders away{fewer}"
        )
    return outcomes


def build(
    patients: list[Patient], measures: list[Measures], preprocessing: Preprocessing, cache: Path
) -> list[Path]:
    """The cache folders of the patients, made where they are missing.

    Raises:
      InputError: the disk has too little room for what is missing; nothing is made then.
    """
    entries = [cache / f"{p.name}-{_key(p, preprocessing)}" for p in patients]
    missing = [k for k, entry in enumerate(entries) if not entry.is_dir()]
    if missing:
        needed = sum(_entry_bytes(measures[k], len(patients[k].targets)) for k in missing)
        free = shutil.disk_usage(cache).free
        said = f"{cache}: {len(missing)} patients to preprocess, {needed / 2**30:.2f} GiB on disk"
        if needed > free:
            raise InputError(
                f"{said}, and {free / 2**30:.2f} GiB are free; wanted room for them: free some, or "
                "choose another place (--config.data.cache_dir)"
            )
        tqdm.write(said)
    for_each(
        lambda k: _build(patients[k], preprocessing, entries[k]),
        _own_order(missing),
        "preprocessing patients",
    )
    return entries


def _own_order(numbers: Sequence[int]) -> list[int]:
    """The same in random order, so that runs that start together share what is to be done."""
    return np.random.default_rng().permutation(numbers).astype(int).tolist()


def _entry_bytes(measures: Measures, targets: int) -> int:
    images, maps, brain = 2 * 2, -(-targets // BITS), 1  # bytes per voxel
    return int(np.prod(measures.shape)) * (images + maps + brain) + 12 * measures.lesion_voxels


def _measured(
    patient: Patient, settings: PreprocessingSettings, cache: Path
) -> Measures | InputError:
    entry = cache / f"measures-{_key(patient, settings)}.json"
    if entry.is_file():
        with contextlib.suppress(InputError):  # damaged: it is made again
            return Measures.of(read_json(entry), str(entry))
    try:
        pair = read_pair(patient)
        resampled = preprocess.resample(patient, pair, settings)
        histograms = preprocess.histograms(patient, resampled, settings)
    except InputError as error:
        return error  # returned, not raised, so that all patients' problems come together
    lesion_voxels = int(resampled.targets[0].sum())
    measures = Measures(
        histograms=tuple(map(tuple, histograms.tolist())),
        lesion_voxels=lesion_voxels,
        shape=resampled.brain.shape,
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
        if not entry.is_dir():  # otherwise another run was faster, with the same bytes
            raise InputError(
                f"{entry}: cannot be written ({error}); wanted room on the disk and the right to "
                "write: what is complete stays, and the same command goes on"
            ) from error


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


def _key(patient: Patient, settings: PreprocessingSettings | Preprocessing) -> str:
    files = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in patient.files
        if path.is_file()  # one that is missing is a problem, for `read_pair` to tell of
    ]
    content = json.dumps([FORMAT, files, settings.model_dump()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
