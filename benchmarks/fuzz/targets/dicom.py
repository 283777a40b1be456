"""Damage folders of DICOM files, and read them as `msseg prepare` does."""

import shutil
import struct
from collections.abc import Callable
from datetime import date
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from msseg_jax.prepare.dicom.header import MOST_SIDE
from msseg_jax.prepare.dicom.values import quiet
from msseg_jax.prepare.scan import read_scan
from msseg_jax.prepare.visit_facts import VisitFacts, compare_visits

NAME = "dicom"
SLICES, SIDE = 12, 16
SPACING_MM = (8.0, 8.0, 6.0)
PLAIN = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
}
BY_ITK = {"jpeg2000": "JPEG2000", "jpeg": "JPEG"}  # lossless, both
SYNTAXES = [
    *PLAIN.values(), "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.201", "1.2.840.113619.5.2", "1.2.3", "",
]  # fmt: skip
# Elements whose values the reader uses, and some that it must not use.
KEYWORDS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "SeriesDate",
    "AcquisitionDate", "AcquisitionDateTime", "StudyTime", "AcquisitionTime", "Modality",
    "SeriesDescription", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "SliceThickness", "EchoTime", "EchoNumbers", "SpacingBetweenSlices", "SeriesInstanceUID",
    "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "TemporalPositionIdentifier", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration",
    "RescaleIntercept", "RescaleSlope", "WindowCenter",
]  # fmt: skip
TEXTS = [
    b"", b" ", b"\0", b"0", b"1", b"-1", b"5.0", b"1e400", b"1E-400", b"nan", b"inf", b"-inf",
    b"1,5", b"abc", b"\\", b"\\\\\\", b"1\\2", b"1\\2\\3", b"1\\0\\0\\0\\1\\0", b"0\\0\\0\\0\\0\\0",
    b"1e5\\1e5\\1e5", b"99999999999999999999", b"2147483648", b"19000101", b"20190304", b"20191399",
    b"2019.03.04", b"20190304103205.5+0100", b"250000", b"10:32:05", b"ISO_IR 100", b"ISO_IR 192",
    b"ISO 2022 IR 100", b"\\ISO 2022 IR 87", b"ISO_IR 999", b"GB18030", b"Sch\xe4del",
    b"Sch\xc3\xa4del", b"\xff\xfe\xff\xfe", b"\x1b$B$3$s", b"\x1b[31m\n\r\t", b"MONOCHROME1",
    b"RGB", b"PALETTE COLOR", b"YBR_FULL_422", b"%s%n{0}", b"../../etc/passwd", b"A" * 300,
    b"1.2.840.10008.5.1.4.1.1.4.1", b"1.2.840.10008.5.1.4.1.1.7",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 32, 64, 255, 256, 1024, 2048, 4096, 32767, 65535]
LENGTHS = [
    0, 1, 2, 7, 0xFF, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC,
    0xFFFFFFFE, 0xFFFFFFFF,
]  # fmt: skip


def make(folder: Path) -> None:
    """Write a valid series per kind of encoding, each into one folder."""
    for kind, syntax in PLAIN.items():
        for number in range(SLICES):
            path = folder / kind / f"IM{number:02}"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, _dataset(number), syntax)
    for kind, compressor in BY_ITK.items():
        (folder / kind).mkdir()
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        for number in range(SLICES):
            encoded = folder / "encoded"
            writer.SetFileName(str(encoded))
            writer.Execute(sitk.GetImageFromArray(_voxels(number)))
            found = pydicom.dcmread(encoded)
            dataset = _dataset(number)
            dataset.PixelData = found.PixelData
            dataset["PixelData"].is_undefined_length = True
            _write(folder / kind / f"IM{number:02}", dataset, found.file_meta.TransferSyntaxUID)
            encoded.unlink()


def _voxels(number: int) -> np.ndarray:
    """Return the voxels of a slice, (SIDE, SIDE) uint16."""
    return np.random.default_rng(number).integers(0, 1000, (SIDE, SIDE)).astype(np.uint16)


def _dataset(number: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.StudyDate, dataset.StudyTime = "20190304", "103205"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20190304", "103311.25"
    dataset.Modality = "MR"
    dataset.SeriesDescription = "FLAIR Schädel"
    dataset.PatientName, dataset.PatientID = "Phantom", "1"
    dataset.PatientBirthDate, dataset.PatientSex = "19800101", "F"
    dataset.SliceThickness, dataset.SpacingBetweenSlices = SPACING_MM[2], SPACING_MM[2]
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2"
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 5, 1, number + 1
    dataset.ImagePositionPatient = [-60, -60, number * SPACING_MM[2]]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = SIDE, SIDE
    dataset.PixelSpacing = list(SPACING_MM[:2])
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "113100", "Basic profile"
    outer.ReferencedSOPInstanceUID = "1.2.3"
    outer.PurposeOfReferenceCodeSequence = [inner]
    dataset.ReferencedImageSequence = [outer, outer]
    private = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    private.add_new(0x10, "OB", bytes(range(256)))
    dataset.PixelData = _voxels(number).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _write(path: Path, dataset: Dataset, syntax: UID) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless, generate_instance_uid=False)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def mutate(random: Random, seeds: Path, case: Path) -> None:
    """Copy one of the series, and damage it in one to three ways."""
    rng = np.random.default_rng(random.getrandbits(64))
    kinds = sorted(path for path in seeds.iterdir() if path.is_dir())
    shutil.copytree(kinds[rng.integers(len(kinds))], case, dirs_exist_ok=True)
    for _ in range(rng.integers(1, 4)):
        files = sorted(path for path in case.rglob("*") if path.is_file())
        if not files:
            break
        # A change of all files passes the checks that compare the slices.
        chosen = files if rng.random() < 0.4 else [files[rng.integers(len(files))]]
        change = CHANGES[rng.integers(len(CHANGES))](rng, seeds)
        for path in chosen:
            change(path)


Change = Callable[[Path], object]


def _pick(rng: np.random.Generator, options: list) -> object:
    return options[rng.integers(len(options))]


def _of_bytes(change: Callable[[bytearray], bytes | bytearray]) -> Change:
    return lambda path: path.write_bytes(change(bytearray(path.read_bytes())))


def flip_bytes(rng: np.random.Generator, _: Path) -> Change:
    """Set some bytes anywhere."""
    places, values = rng.random(rng.integers(1, 20)), rng.integers(0, 256, 20)

    def change(content: bytearray) -> bytearray:
        for place, value in zip(places, values, strict=False):
            if content:
                content[int(place * len(content))] = value
        return content

    return _of_bytes(change)


def flip_voxels(rng: np.random.Generator, _: Path) -> Change:
    """Set some bytes at the beginning of the voxels, where compressed data have their header."""
    places, values = rng.integers(0, 160, rng.integers(1, 12)), rng.integers(0, 256, 12)

    def change(content: bytearray) -> bytearray:
        start = max(content.rfind(b"\xe0\x7f\x10\x00"), content.rfind(b"\x7f\xe0\x00\x10"))
        for place, value in zip(places, values, strict=False):
            if start >= 0 and start + place < len(content):
                content[start + place] = value
        return content

    return _of_bytes(change)


def set_size_in_voxels(rng: np.random.Generator, _: Path) -> Change:
    """Write a huge size after the marker that gives it in JPEG or JPEG 2000 data."""
    size = struct.pack(">I", int(rng.choice([0, 1, 17, 255, 65535, 2**20, 2**31, 2**32 - 1])))
    place, width = int(rng.integers(2, 42)), int(rng.choice([2, 4]))

    def change(content: bytearray) -> bytearray:
        for marker in (b"\xff\x51\x00", b"\xff\xc3\x00", b"\xff\xc0\x00", b"\xff\xf7\x00"):
            start = content.find(marker)
            if start >= 0 and start + place + width <= len(content):
                content[start + place : start + place + width] = size[-width:]
        return content

    return _of_bytes(change)


def cut(rng: np.random.Generator, _: Path) -> Change:
    """Cut the file off, or take a piece out of it."""
    start, length = rng.random(), int(rng.choice([1, 2, 8, 100, 10**6]))

    def change(content: bytearray) -> bytearray:
        first = int(start * len(content))
        return content[:first] + content[first + length :]

    return _of_bytes(change)


def insert(rng: np.random.Generator, _: Path) -> Change:
    """Insert random bytes."""
    start, added = rng.random(), rng.bytes(int(rng.choice([1, 2, 8, 300])))
    return _of_bytes(lambda content: content[: int(start * len(content))] + added
                     + content[int(start * len(content)) :])  # fmt: skip


def set_length(rng: np.random.Generator, _: Path) -> Change:
    """Set the length of one element."""
    length, share, wide = int(_pick(rng, LENGTHS)), rng.random(), rng.random() < 0.5

    def change(path: Path) -> None:
        places = [
            element.value_tell
            for element in (_parsed(path) or {}).values()
            if isinstance(element, RawDataElement)
        ]
        content = bytearray(path.read_bytes())
        if places:
            end = places[int(share * len(places))]
            size = 4 if wide else 2
            content[end - size : end] = (length & (2 ** (8 * size) - 1)).to_bytes(size, "little")
            path.write_bytes(content)

    return change


def set_value(rng: np.random.Generator, _: Path) -> Change:
    """Replace the value of one element."""
    keyword = str(_pick(rng, KEYWORDS))
    tag = Tag(tag_for_keyword(keyword))
    types = dictionary_VR(tag)
    if rng.random() < 0.1:
        types = str(_pick(rng, ["LO", "US", "UN", "SQ", "ZZ", "DS", "UL", "OB", "AT", "FD"]))
    value = bytes(_pick(rng, TEXTS))
    if types in ("US", "UL") and rng.random() < 0.9:
        value = struct.pack("<H", int(_pick(rng, NUMBERS)))

    def change(path: Path) -> None:
        if (dataset := _parsed(path)) is not None:
            is_implicit, is_little = dataset.original_encoding
            dataset[tag] = RawDataElement(
                tag, types, len(value), value, 0, bool(is_implicit), bool(is_little)
            )
            _save(path, dataset)

    return change


def remove_value(rng: np.random.Generator, _: Path) -> Change:
    """Remove one element."""
    keyword = str(_pick(rng, [*KEYWORDS, "PixelData"]))

    def change(path: Path) -> None:
        dataset = _parsed(path)
        if dataset is not None and keyword in dataset:
            del dataset[keyword]
            _save(path, dataset)

    return change


def set_syntax(rng: np.random.Generator, _: Path) -> Change:
    """Name another way of compression than that of the voxels."""
    syntax = str(_pick(rng, SYNTAXES)).encode()

    def change(content: bytearray) -> bytearray:
        start = content.find(b"\x02\x00\x10\x00UI")
        if start < 0:
            return content
        length = int.from_bytes(content[start + 6 : start + 8], "little")
        content[start + 8 : start + 8 + length] = syntax[:length].ljust(length, b"\0")
        return content

    return _of_bytes(change)


def nest(rng: np.random.Generator, _: Path) -> Change:
    """Insert deeply nested sequences before the voxels."""
    depth, closes = int(rng.choice([3, 100, 3000])), rng.random() < 0.5
    opened = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * (depth * closes)

    def change(content: bytearray) -> bytearray:
        start = max(content.rfind(b"\xe0\x7f\x10\x00"), 0)
        return content[:start] + opened + closed + content[start:]

    return _of_bytes(change)


def move_file(rng: np.random.Generator, seeds: Path) -> Change:
    """Remove the file, copy it, or replace it with one of another series or with random bytes."""
    others = sorted(path for path in seeds.rglob("*") if path.is_file())
    other, noise = _pick(rng, others), rng.bytes(500)
    return _pick(
        rng,
        [
            lambda path: path.unlink(),
            lambda path: shutil.copy(path, path.with_name(path.name + "_copy")),
            lambda path: shutil.copy(other, path),
            lambda path: path.write_bytes(noise),
            lambda path: path.write_bytes(bytes(128) + b"DICM" + noise),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(path.read_bytes()[132:]),  # as old programs write it
        ],
    )


CHANGES = [
    flip_bytes, flip_voxels, set_size_in_voxels, cut, insert, set_length, set_length, set_value,
    set_value, set_value, remove_value, set_syntax, nest, move_file,
]  # fmt: skip


def _parsed(path: Path) -> pydicom.FileDataset | None:
    """Read a file that may be damaged already; None if pydicom cannot read it."""
    try:
        with quiet():
            return pydicom.dcmread(path)
    except Exception:  # pydicom raises errors of many classes for damaged files
        return None


def _save(path: Path, dataset: pydicom.FileDataset) -> None:
    """Write a dataset, unless pydicom refuses its values."""
    copy = path.with_name(path.name + ".new")
    try:
        with quiet():
            dataset.save_as(copy)
        copy.replace(path)
    except Exception:  # pydicom raises errors of many classes for odd values
        copy.unlink(missing_ok=True)


def use(case: Path) -> None:
    """Read the series, and check that a result is plausible."""
    scan = read_scan(case)
    array = sitk.GetArrayViewFromImage(scan.image)
    assert scan.image.GetDimension() == 3, scan.image.GetDimension()
    assert len(array) >= 10, array.shape
    assert max(array.shape) <= MOST_SIDE, array.shape
    assert np.isfinite(array).all()
    assert array.min() < array.max()
    assert all(0 < mm <= 8 for mm in scan.image.GetSpacing()), scan.image.GetSpacing()
    assert scan.series, "the series has no name"
    assert scan.series.isprintable(), scan.series
    compare_visits((case, case), (scan.facts, VisitFacts(date(2020, 1, 2))), allow_reversed=True)
