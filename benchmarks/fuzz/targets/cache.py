"""The cache of preprocessed patients, used by a training that starts again.

A damaged entry must be made again with the same content. An entry that is damaged later, during a
training, must be refused when it is opened.
"""

import random
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_bytes, mutate_json, mutate_place
from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.cache import FIELDS, CachedPatient, open_patient
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import TrainingSet, prepare
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02

NAME = "cache"
SHAPE = (9, 10, 8)

_SETTINGS = PreprocessingSettings(spacing_mm=1.0, patch_size=4, percentiles=(1.0, 50.0, 99.0))
_HEADER = 128  # bytes of a .npy file before its numbers


def make(folder: Path) -> None:
    """Write two patients and their cache."""
    rng = np.random.default_rng(0)
    brain = np.zeros(SHAPE, dtype=np.uint8)
    brain[1:-1, 1:-1, 1:-1] = 1
    lesion = np.zeros(SHAPE, dtype=np.uint8)
    lesion[3:5, 4:6, 3:5] = 1
    for name in ("a", "b"):
        patient = folder / "patients" / name
        patient.mkdir(parents=True)
        visits = rng.uniform(50, 100, (2, *SHAPE)).astype(np.float32) * brain
        for file, array in (
            (TIME01, visits[0]), (TIME02, visits[1]), (BRAIN_MASK, brain), (CONSENSUS, lesion),
        ):  # fmt: skip
            nib.save(nib.Nifti1Image(array, np.eye(4)), patient / file)
    training_set = _prepare(folder / "patients", folder / "cache")
    for name, place in training_set.training:
        patient = open_patient(name, place)
        np.savez(folder / f"{name}.npz", **{field: getattr(patient, field) for field in FIELDS})


def _prepare(patients: Path, cache: Path) -> TrainingSet:
    # Resolved, because the names of the entries depend on the paths of the files.
    return prepare(patients.resolve(), 1, _SETTINGS, HoldOut(0), cache)


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Damage one or two files of the cache."""
    shutil.copytree(seeds / "cache", case / "cache", copy_function=shutil.copyfile)
    for name in ("patients", "a.npz", "b.npz"):
        (case / name).symlink_to((seeds / name).resolve())
    if rng.random() < 0.4:
        (case / "during_training").touch()
    files = sorted(path for path in (case / "cache").rglob("*") if path.is_file())
    for path in rng.sample(files, rng.choice((0, 1, 1, 2))):
        if path.is_file():  # its folder may have been renamed
            _damage(rng, path, files)


def _damage(rng: random.Random, path: Path, files: list[Path]) -> None:
    content = path.read_bytes()
    match rng.randrange(10):
        case 0:
            mutate_place(rng, path)
        case 1:
            other = rng.choice(files)
            if other.is_file():
                path.write_bytes(other.read_bytes())
        case 2:
            path.write_bytes(bytes(len(content)))  # as after a power failure
        case 3 if path.suffix == ".npy":
            folder = path.parent
            folder.rename(folder.with_name(f"{folder.name}x"))
        case 4 if path.suffix == ".npy":
            path.write_bytes(mutate_bytes(rng, content[:_HEADER]) + content[_HEADER:])
        case 5 | 6 if path.suffix == ".npy":
            path.write_bytes(_with_header(rng, content))
        case _ if path.suffix == ".json":
            path.write_bytes(mutate_json(rng, content.decode()))
        case _:
            path.write_bytes(mutate_bytes(rng, content))


def _with_header(rng: random.Random, content: bytes) -> bytes:
    """Return a .npy file with another description of its array."""
    shape = rng.choice(("()", "(0,)", "(-1,)", "(2**70,)", "(1, 2, 3)", "(9" * 300, "(10**12, 8)",
                        "(4, 4)", "(18446744073709551616,)", "(True, 8)", "(1.5,)"))  # fmt: skip
    descr = rng.choice(("'<i2'", "'|O'", "'<f8'", "'|V0'", "'<U9'", "[('a', '<i2')]", "3", "''"))
    order = rng.choice(("False", "True", "None"))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = rng.choice((text, text, "(" * 5000, "[" * 100 + "]" * 100, "0" * 9000)).ljust(117) + "\n"
    start = content[:8] + len(text).to_bytes(2, "little") + text.encode()
    return start + content[_HEADER:]


def use(case: Path) -> None:
    """Prepare the patients with this cache, or open its entries; compare all arrays."""
    if (case / "during_training").exists():
        for folder in sorted((case / "cache").rglob("[ab]-*")):
            _compare_forms(open_patient(folder.name[:1], folder), case)
        return
    training_set = _prepare(case / "patients", case / "cache")
    for name, folder in training_set.training:
        patient = open_patient(name, folder)
        with np.load(case / f"{name}.npz") as truth:
            for field in FIELDS:
                if not np.array_equal(getattr(patient, field), truth[field]):
                    raise WrongReading(f"{name}: other {field}")


def _compare_forms(patient: CachedPatient, case: Path) -> None:
    # The numbers are not compared: checksums are compared only at the start of a training.
    with np.load(case / f"{patient.name}.npz") as truth:
        for field in FIELDS:
            array = np.asarray(getattr(patient, field))
            if array.dtype != truth[field].dtype or array.ndim != truth[field].ndim:
                raise WrongReading(f"{patient.name}: {field} is {array.shape} {array.dtype}")
