"""Cache preprocessed patients on disk, so that each is read, checked and resampled only once.

The arrays of a cache entry are memory-mapped. The layout of the cache is:

CACHE/format-<n>/measures-<key>.json     measurements of one patient, needed before normalisation
CACHE/format-<n>/<patient>-<key>/        images.npy        (2, D, H, W) int16, normalised, packed
                                         targets.npy       (ceil(T / 8), D, H, W) uint8, packed
                                         brain.npy         (D, H, W) bool
                                         lesion_voxels.npy (L, 3) int32, where patches are placed
                                         affine.npy        (4, 4), voxel indices to scanner mm
                                         known.npy         (T,) bool, whether a target is known
                                         lesion_counts.npy (K,) int64, see below
                                         checksums.json    CRC-32 of these files

See `packing` for the packed formats. The lesion voxels are those of the new lesions, and with the
target set "changes" then those of the enlarging and of the vanished ones; their counts say how many
voxels each kind has. A key is a hash of the input files (path, size,
modification time) and of every setting, so an entry with the right checksums is correct and has
passed the checks. Other entries are made again. An entry is written under a temporary name next to
its final path, and then renamed. Runs can therefore share a cache, and an interrupted run leaves no
incomplete entry under a final name.
"""

import contextlib
import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from msseg_jax.configuration.section import Section
from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.configuration.targets import LESIONS01, VANISHED
from msseg_jax.data import preprocess
from msseg_jax.data.packing import BITS, pack_images, pack_targets
from msseg_jax.data.patches import Shape
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.system.atomic import whole_folder, write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.processes import for_each
from msseg_jax.system.words import count_of
from msseg_jax.volumes.layout import CONSENSUS, Patient
from msseg_jax.volumes.pair import Pair, read_pair

FORMAT = 6  # increase it when the meaning of an entry changes
ABANDONED_S = 3600.0  # writing takes seconds, so a partial entry this old is from a killed run


# files of an entry
FIELDS = ("images", "targets", "brain", "lesion_voxels", "affine", "known", "lesion_counts")
CHECKSUMS = "checksums.json"


class Entry(NamedTuple):
    """The cache entry of a patient."""

    name: str
    folder: Path


class Measures(Section):
    """Measurements of a patient that are needed before any patient is normalised."""

    histograms: tuple[tuple[float, ...], tuple[float, ...]]  # (2, P), percentiles of each visit
    lesion_voxels: int  # number of new-lesion voxels in the first target, on the isotropic grid
    changed_voxels: int  # number of voxels of the other lesions on which patches are placed
    shape: Shape  # size in voxels of the isotropic grid, cropped to the brain
    digest: str  # hash of the grid and of the voxels of all files, but not of their paths


class _StoredMeasures(Section):
    """The content of a file of measurements. The checksum shows whether a number was damaged."""

    measures: Measures
    sha256: str  # see `_checksum`


@dataclass(frozen=True)
class CachedPatient:
    """The memory-mapped arrays of one patient."""

    name: str
    images: np.ndarray  # (2, D, H, W) int16, packed
    targets: np.ndarray  # (ceil(T / 8), D, H, W) uint8, packed
    brain: np.ndarray  # (D, H, W) bool
    lesion_voxels: np.ndarray  # (L, 3) int32, of all kinds, one kind after the other
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    known: np.ndarray  # (T,) bool
    lesion_counts: np.ndarray  # (K,) int64, number of voxels of each kind; the first is "new"

    @property
    def has_lesions(self) -> bool:
        """Return whether the patient has a new-lesion voxel."""
        return bool(self.lesion_counts[0] > 0)

    @property
    def bits_of_time01(self) -> int:
        """The bits of `targets` that mark what the first visit shows; 0 for raters."""
        return 1 << VANISHED | 1 << LESIONS01 if len(self.lesion_counts) > 1 else 0

    @cached_property
    def lesion_kinds(self) -> list[np.ndarray]:
        """The voxels of each kind of lesion, (L_k, 3) int32 each; the first kind is "new"."""
        return np.split(self.lesion_voxels, np.cumsum(self.lesion_counts)[:-1])


def open_patient(name: str, folder: Path) -> CachedPatient:
    """Memory-map a cache entry. Its voxels are read from disk when they are used.

    Raises:
      InputError: The entry is damaged.
    """
    try:
        arrays = [np.load(folder / f"{field}.npy", mmap_mode="r") for field in FIELDS]
        patient = CachedPatient(name, *arrays)
        if problem := _problem(patient):
            raise ValueError(problem)
    except Exception as error:  # NumPy has no specific error for a damaged file
        raise InputError(
            f"{folder}: this cache entry is damaged ({error}). Delete the folder, and run the same "
            "command again to create the entry again."
        ) from error
    return patient


def _problem(patient: CachedPatient) -> str | None:
    """Return which array of an entry has the wrong type or shape; None if all are right."""
    shape = patient.brain.shape
    maps = patient.targets.shape[:1]
    expected = {
        "images": (np.int16, (2, *shape)),
        "targets": (np.uint8, (*maps, *shape)),
        "brain": (np.bool_, shape),
        "lesion_voxels": (np.int32, (len(patient.lesion_voxels), 3)),
        "affine": (np.float64, (4, 4)),
        "known": (np.bool_, (len(patient.known),)),
        "lesion_counts": (np.int64, (len(patient.lesion_counts),)),
    }
    for field, (dtype, size) in expected.items():
        array = getattr(patient, field)
        if array.dtype != dtype or array.shape != size:
            return f"{field} is {array.shape} {array.dtype}"
    voxels = patient.lesion_voxels
    if len(shape) != 3 or (voxels < 0).any() or (voxels >= shape).any() or not patient.brain.any():
        return "brain or lesion_voxels"
    counts = patient.lesion_counts
    if len(counts) == 0 or (counts < 0).any() or counts.sum() != len(voxels):
        return "lesion_counts"
    if -(-len(patient.known) // BITS) != len(patient.targets):
        return "known"
    return None


def is_intact(folder: Path) -> bool:
    """Return whether a cache entry exists, and has the bytes that were written."""
    try:
        stored = read_json(folder / CHECKSUMS)
        return bool(stored == _checksums(folder))
    except (InputError, OSError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    sums = {}
    for field in FIELDS:
        with (folder / f"{field}.npy").open("rb") as file:
            total = 0
            while part := file.read(2**20):
                total = zlib.crc32(part, total)
        sums[field] = total
    return sums


def open_cache(folder: Path) -> Path:
    """Return the subfolder of a cache for entries of this format. Create it if necessary.

    Partial entries that killed runs left behind are deleted.

    Raises:
      InputError: The folder cannot be written to.
    """
    place = folder / f"format-{FORMAT}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        abandoned = [p for p in place.glob(".partial-*") if _age_s(p) > ABANDONED_S]
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be used as the cache ({error}). Choose a folder that you can write "
            "to (--config.data.cache_dir)."
        ) from error
    for path in abandoned:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return place


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # another run has just renamed it to its final name
        return 0.0


def measure(
    patients: list[Patient], settings: PreprocessingSettings, cache: Path
) -> list[Measures]:
    """Check and measure every patient. The cache keeps the measurements for later runs.

    Raises:
      InputError: There are problems. The message lists every problem of every patient.
    """
    work = partial(_measured, settings=settings, cache=cache)
    order = _random_order(range(len(patients)))
    found = for_each(work, [patients[k] for k in order], "checking patients")
    outcomes = [outcome for _, outcome in sorted(zip(order, found, strict=True), key=itemgetter(0))]
    problems = [outcome for outcome in outcomes if isinstance(outcome, InputError)]
    if problems:
        targets = len(patients[0].targets)
        fewer = " If there is only a consensus, use --config.model.targets=1." * (targets > 1)
        lines = [line for problem in problems for line in str(problem).split("\n")]
        maps = f"with as many reference maps as config.model.targets ({targets})"
        if patients[0].target_set == "changes":
            maps = f"with {CONSENSUS}; the other reference maps may be missing"
            fewer = ""
        raise InputError(
            f"{len(problems)} of {count_of(len(patients), 'patient')} cannot be used:\n"
            + "\n".join(lines)
            + f"\nEvery patient must be complete, {maps}. Repair these patients, or move their "
            f"folders away.{fewer}"
        )
    return [outcome for outcome in outcomes if isinstance(outcome, Measures)]


def build(
    patients: list[Patient], measures: list[Measures], preprocessing: Preprocessing, cache: Path
) -> list[Path]:
    """Return the cache folders of the patients. Create those that are missing or damaged.

    Raises:
      InputError: The disk has too little space for all missing entries (then none is written), or
        an entry cannot be written.
    """
    entries = [cache / f"{p.name}-{_key(p, preprocessing)}" for p in patients]
    missing = [k for k, entry in enumerate(entries) if not is_intact(entry)]
    if missing:
        needed = sum(_entry_bytes(measures[k], len(patients[k].targets)) for k in missing)
        free = shutil.disk_usage(cache).free
        need = (
            f"{cache}: preprocessing {count_of(len(missing), 'patient')} needs "
            f"{needed / 2**30:.2f} GiB of disk space"
        )
        if needed > free:
            raise InputError(
                f"{need}, but only {free / 2**30:.2f} GiB are free. Free some disk space, or "
                "choose another folder (--config.data.cache_dir)."
            )
        tqdm.write(need)
    for_each(
        lambda k: _build(patients[k], preprocessing, entries[k]),
        _random_order(missing),
        "preprocessing patients",
    )
    return entries


def _random_order(numbers: Sequence[int]) -> list[int]:
    """Return the numbers in random order, so that runs started together share the work."""
    return np.random.default_rng().permutation(numbers).astype(int).tolist()


def _entry_bytes(measures: Measures, targets: int) -> int:
    """Return the size of an entry on disk in bytes, without the headers of its files."""
    images, maps, brain = 2 * 2, -(-targets // BITS), 1  # bytes per voxel
    places = 12 * (measures.lesion_voxels + measures.changed_voxels)
    return int(np.prod(measures.shape)) * (images + maps + brain) + places


def _measured(
    patient: Patient, settings: PreprocessingSettings, cache: Path
) -> Measures | InputError:
    entry = cache / f"measures-{_key(patient, settings)}.json"
    if entry.is_file():
        with contextlib.suppress(InputError):  # a damaged file is written again below
            return _read_measures(entry)
    try:
        pair = read_pair(patient)
        resampled = preprocess.resample(patient, pair, settings)
        histograms = preprocess.histograms(patient, resampled, settings)
    except InputError as error:
        return error  # not raised, so that `measure` can list the problems of all patients
    time01, time02 = histograms.tolist()
    depth, height, width = resampled.brain.shape
    measures = Measures(
        histograms=(tuple(time01), tuple(time02)),
        lesion_voxels=int(resampled.targets[0].sum()),
        changed_voxels=sum(int(resampled.targets[k].sum()) for k in patient.placing[1:]),
        shape=(depth, height, width),
        digest=_digest(pair),
    )
    try:
        stored = _StoredMeasures(measures=measures, sha256=_checksum(entry, measures))
        write_beside(
            entry, lambda path: path.write_text(stored.model_dump_json(), encoding="utf-8")
        )
    except OSError as error:
        return InputError(
            f"{entry}: cannot be written ({error}). Check the disk space and the permission to "
            "write, and delete what lies there."
        )
    return measures


def _read_measures(entry: Path) -> Measures:
    """Read the measurements of a patient. Raise InputError if the file is damaged."""
    stored = _StoredMeasures.of(read_json(entry), str(entry), complete=True)
    if stored.sha256 != _checksum(entry, stored.measures):
        raise InputError(f"{entry}: the checksum is wrong; expected that of its measurements.")
    return stored.measures


def _checksum(entry: Path, measures: Measures) -> str:
    """Return a checksum that also depends on the name, so that files cannot be exchanged."""
    return hashlib.sha256(f"{entry.name} {measures.model_dump_json()}".encode()).hexdigest()


def _build(patient: Patient, preprocessing: Preprocessing, entry: Path) -> None:
    if is_intact(entry):  # another run was faster
        return
    resampled = preprocess.resample(patient, read_pair(patient), preprocessing.settings)
    kinds = [np.argwhere(resampled.targets[k]) for k in patient.placing]
    arrays = {
        "images": pack_images(preprocess.apply(preprocessing, patient, resampled)),
        "targets": pack_targets(resampled.targets),
        "brain": resampled.brain,
        "lesion_voxels": np.concatenate(kinds).astype(np.int32),
        "affine": resampled.affine,
        "known": resampled.known,
        "lesion_counts": np.array([len(kind) for kind in kinds], np.int64),
    }
    try:
        with whole_folder(entry, replace=True) as new:
            for field, array in arrays.items():
                np.save(new / f"{field}.npy", array)
            (new / CHECKSUMS).write_text(json.dumps(_checksums(new)) + "\n", encoding="utf-8")
    except OSError as error:
        if not is_intact(entry):  # if it exists, another run was faster and wrote the same bytes
            raise InputError(
                f"{entry}: cannot be written ({error}). Check the disk space and the permission to "
                "write. Complete entries are kept: run the same command again to resume."
            ) from error


def _digest(pair: Pair) -> str:
    """Return a hash of the grid and the voxels of a pair."""
    digest = hashlib.sha256(repr(pair.brain.shape).encode())
    for array in (
        pair.time01.affine,
        pair.time01.array,
        pair.time02.array,
        pair.brain,
        pair.targets,
    ):
        digest.update(np.ascontiguousarray(array).ravel().data)
    if not pair.known.all():  # an unknown target is not an empty one
        digest.update(pair.known.data)
    return digest.hexdigest()[:16]


def _key(patient: Patient, settings: PreprocessingSettings | Preprocessing) -> str:
    """Return the key of a patient's entry. It changes if a file or a setting changes."""
    files = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in patient.files
        if path.is_file()  # `read_pair` reports missing files
    ]
    targets = [path.name for path in patient.targets]  # also those that are not known
    content = json.dumps([FORMAT, files, targets, settings.model_dump()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
