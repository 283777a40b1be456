"""NIfTI files, read and resampled as `msseg predict` does before the network runs."""

import gzip
import random
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_bytes, mutate_place
from benchmarks.fuzz.plain_nifti import (
    content_of,
    header_of,
    mutate_header,
    read_plain,
    same_array,
)
from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data import preprocess
from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02, patient_in
from msseg_jax.volumes.nifti import check_finite, read_volume
from msseg_jax.volumes.pair import read_pair
from msseg_jax.volumes.volume import Volume

NAME = "nifti"
SHAPE = (9, 10, 8)
BOMB_MB = 64  # of zeros in one member of a gzip file

_SETTINGS = PreprocessingSettings(spacing_mm=1.0, patch_size=4)


def make(folder: Path) -> None:
    """Write volumes in several forms, and a patient."""
    rng = np.random.default_rng(0)
    affine = np.array([[-1.0, 0, 0, 5], [0, 0.9, 0.1, -7], [0, -0.1, 0.9, 3], [0, 0, 0, 1]])
    affine[:3, :3] /= np.linalg.norm(affine[:3, :3], axis=0)
    image = rng.uniform(10, 100, SHAPE).astype(np.float32)
    whole = rng.integers(0, 4000, SHAPE)

    def save(name: str, kind: type, array: np.ndarray, **fields: float) -> None:
        one = kind(array, affine, dtype=array.dtype)
        one.header.set_xyzt_units("mm")
        one.set_qform(affine, code=1)
        one.set_sform(affine, code=1)
        for field, value in fields.items():
            one.header[field] = value
        nib.save(one, folder / name)

    save("float32.nii", nib.Nifti1Image, image)
    save("int16.nii.gz", nib.Nifti1Image, whole.astype(np.int16))
    save("uint8.nii.gz", nib.Nifti1Image, (whole % 2).astype(np.uint8))
    save("float64.nii.gz", nib.Nifti1Image, image[..., None].astype(np.float64))
    save("pair.hdr", nib.Nifti1Pair, whole.astype(np.uint16))
    save("nifti2.nii.gz", nib.Nifti2Image, image)
    scaled = nib.Nifti1Image(whole.astype(np.int16), affine)
    scaled.header.set_slope_inter(0.25, -3)
    content = bytearray(scaled.to_bytes())
    header = np.frombuffer(content, nib.nifti1.header_dtype, 1)
    header["scl_slope"], header["scl_inter"] = 0.25, -3
    (folder / "scaled.nii").write_bytes(content)
    turned = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(image.astype(">f4"), affine, turned), folder / "big_endian.nii")
    extended = nib.Nifti1Image(image, affine)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by a scanner"))
    nib.save(extended, folder / "extended.nii.gz")

    patient = folder / "patient"
    patient.mkdir()
    brain = np.zeros(SHAPE, dtype=np.uint8)
    brain[1:-1, 1:-1, 1:-1] = 1
    for name, array in (
        (TIME01, image * brain), (TIME02, (whole / 40 * brain).astype(np.float32)),
        (BRAIN_MASK, brain),
    ):  # fmt: skip
        save(f"patient/{name}", nib.Nifti1Image, array)
    (folder / "bomb").write_bytes(gzip.compress(bytes(BOMB_MB * 10**6), 9, mtime=0))


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Write a damaged volume, or a patient whose files have the same damage."""
    if rng.random() < 0.25:
        _mutate_patient(rng, seeds / "patient", case / "patient")
        return
    source = rng.choice(sorted(p for p in seeds.iterdir() if p.suffix in (".gz", ".nii", ".hdr")))
    name = source.name
    if rng.random() < 0.1:
        name = name.replace(".nii", rng.choice((".NII", ".Nii"))).replace(".gz", ".GZ")
    path = case / name
    shutil.copy(source, path)
    if source.suffix == ".hdr":
        shutil.copy(source.with_suffix(".img"), case)
    match rng.randrange(20):
        case 0:
            return  # no damage
        case 1:
            mutate_place(rng, rng.choice(sorted(case.iterdir())))
        case 2 | 3 | 4:
            one = rng.choice(sorted(case.iterdir()))
            one.write_bytes(mutate_bytes(rng, one.read_bytes()))  # also of the gzip format
        case 5 | 6:
            _repack(path, mutate_bytes(rng, content_of(path)))
        case 7:
            start = content_of(path)[: rng.choice((348, 352, 400))]
            one = mutate_bytes(rng, start) + content_of(path)[len(start) :]
            _repack(path, one)
        case 8 if path.name.lower().endswith(".gz") and rng.random() < 0.3:
            _bomb(rng, path, (seeds / "bomb").read_bytes())
        case _:
            _repack(path, mutate_header(rng, content_of(path)))


def _mutate_patient(rng: random.Random, source: Path, patient: Path) -> None:
    """Copy a patient, and damage the headers of all files in the same way."""
    shutil.copytree(source, patient)
    if rng.random() < 0.1:
        mutate_place(rng, rng.choice(sorted(patient.iterdir())))
        return
    state = rng.getstate()
    for path in sorted(patient.iterdir()):
        rng.setstate(state)
        _repack(path, mutate_header(rng, content_of(path)))


def _repack(path: Path, content: bytes) -> None:
    """Write content in the way in which the file was written before."""
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    path.write_bytes(gzip.compress(content, 1, mtime=0) if packed else content)


def _bomb(rng: random.Random, path: Path, member: bytes) -> None:
    """Write a file of up to 2 MB that unpacks to up to 2 GB, as its header says."""
    header = header_of(content_of(path)).copy()
    members = rng.randrange(1, 33)
    voxels = members * BOMB_MB * 10**6 // (int(header["bitpix"]) // 8)
    header["dim"][1:4] = 1000, 1000, max(voxels // 10**6, 1)
    start = header.tobytes() + b"\0\0\0\0"
    path.write_bytes(gzip.compress(start, mtime=0) + member * members)


def use(case: Path) -> None:
    """Read the volume, or the patient, and compare it with what the file contains."""
    if (case / "patient").exists():
        patient = patient_in(case / "patient")
        pair = read_pair(patient)
        for path, volume in ((patient.time01, pair.time01), (patient.time02, pair.time02)):
            _compare(path, volume)
        resampled = preprocess.resample(patient, pair, _SETTINGS)
        if not np.isfinite(resampled.images).all() or not np.isfinite(resampled.affine).all():
            raise WrongReading("resampling made values that are not finite")
        return
    names = sorted(p for p in case.iterdir() if p.suffix.lower() != ".img")
    path = names[0] if names else case / "missing.nii"
    volume = read_volume(path)
    if volume.array.size < 10**7:  # the plain reader of larger ones would need much memory
        _compare(path, volume)
    check_finite(volume)


def _compare(path: Path, volume: Volume) -> None:
    plain = read_plain(path)
    if not same_array(volume.array, plain.array):
        raise WrongReading(f"{path.name}: other voxels, {volume.array.shape} {plain.array.shape}")
    if plain.affine is not None:
        reach = np.abs(plain.affine).max() * max(plain.array.shape)
        if np.abs(volume.affine - plain.affine).max() > 1e-4 * reach:
            raise WrongReading(f"{path.name}: affine {volume.affine}, not {plain.affine}")
    sides_mm = np.linalg.norm(volume.affine[:3, :3], axis=0)
    if np.abs(sides_mm / plain.sides_mm - 1).max() > 0.011:
        raise WrongReading(f"{path.name}: voxel sides {sides_mm}, not {plain.sides_mm} mm")
