"""Read the header of one DICOM file with pydicom, without its voxels."""

import zlib
from dataclasses import dataclass
from datetime import date, time
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from msseg_jax.prepare.dicom.values import (
    WHEN,
    DamagedSliceError,
    acquired,
    numbers,
    quiet,
    text_of,
    whole,
)
from msseg_jax.prepare.visit_facts import ID, PERSON
from msseg_jax.system.errors import InputError

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # SOP class of a file with one slice
ENHANCED = MR_IMAGE + "."  # prefix of the other SOP classes, which store positions in nested tags
# Fields in which several stacks of one series can differ, and their names in messages.
STACK_FIELDS = {
    "AcquisitionNumber": "acquisition number",
    "EchoNumbers": "echo number",
    "TemporalPositionIdentifier": "temporal position",
    "EchoTime": "echo time in ms",
    "InversionTime": "inversion time in ms",
    "ImageType": "image type",
    "AcquisitionDateTime": "acquisition date and time",
    "AcquisitionTime": "acquisition time",
    "ContentTime": "content time",
}
_KEYWORDS = {
    "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "PixelData",
    ID, *PERSON, *STACK_FIELDS, *(name for pair in WHEN for name in pair if name),
}  # fmt: skip
UNIT_TOLERANCE = 0.01  # of the lengths and the scalar product of two directions
# Larger sizes come from damaged files. They would take a long time and much memory.
MOST_SIDE = 2048  # rows or columns; MR scanners write up to 1024
MOST_FRAMES = 100_000
MOST_INFLATED = 2**25  # bytes of a slice whose whole file is compressed
LONGEST_VALUE = 2**16  # bytes; longer values are not read, except the voxels
VOXELS = 0x7FE00010  # tag of PixelData
COMPRESSED = 0xFFFFFFFF  # length of the voxels if they are compressed
DEFLATED = DeflatedExplicitVRLittleEndian.encode()


@dataclass(frozen=True)
class SliceLabels:
    """The texts in the header of a slice. A text that is missing or malformed is ''."""

    uid: str  # of the series, as are the number and the description
    number: str
    description: str
    modality: str
    stack: dict[str, str]  # values of STACK_FIELDS
    patient: dict[str, str]  # values of ID and PERSON
    acquired: tuple[date, time | None] | None
    instance: int | None = None  # number of the slice in its series, as viewers show it


@dataclass(frozen=True)
class DicomSlice:
    """The header of one file."""

    path: Path
    labels: SliceLabels
    # The geometry is 0 in enhanced files, whose header has another layout.
    position_mm: np.ndarray  # (3,) centre of the first voxel, LPS
    axes: np.ndarray  # (2, 3) directions of a row and a column
    spacing_mm: np.ndarray  # (2,) distances of the rows and of the columns
    shape: tuple[int, int]  # rows and columns
    frames: int
    is_coloured: bool
    is_enhanced: bool
    stored_bytes: int  # of the voxels in the file
    voxel_bytes: int  # of the voxels after decompression


def read_slice(path: Path) -> DicomSlice | None:
    """Read the header of a slice. Return None if the file is something else.

    Raises:
      DamagedSliceError: The file is an MR image, but is cut off or has invalid values.
      InputError: The file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a readable file. Check the permissions."
        ) from error
    # Old programs leave out the preamble. Such a file begins with an element of group 2 or 8.
    is_bare = start[:2] in (b"\2\0", b"\x08\0") and start[3:4] == b"\0"
    if start[128:132] != b"DICM" and not is_bare:
        return None
    is_mr = MR_IMAGE.encode() + b"\0" in start
    with quiet():
        try:
            dataset, voxels = _read(path)
        except Exception as error:  # pydicom raises errors of many classes for damaged files
            if is_mr:
                raise DamagedSliceError(f"its header cannot be read ({error})") from error
            return None
        kind = text_of(dataset, "SOPClassUID")
        try:
            if kind.startswith(ENHANCED):
                return _enhanced_slice(path, dataset)
            return _plain_slice(path, dataset, voxels)
        except DamagedSliceError as error:
            if is_mr or kind == MR_IMAGE:
                error.uid = text_of(dataset, "SeriesInstanceUID")
                raise
            return None


def open_dicom(path: Path) -> BinaryIO:
    """Open a file for pydicom. If it is compressed as a whole, decompress it up to a limit.

    pydicom would decompress it without a limit.
    """
    file = path.open("rb")
    start = file.read(1024)
    if DEFLATED not in start:
        file.seek(0)
        return file
    with file:
        content = start + file.read()
    # The first element, (0002,0000), gives the length of the rest of group 2 after byte 144.
    end = 144 + int.from_bytes(content[140:144], "little")
    data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[end:], MOST_INFLATED)
    plain = ExplicitVRLittleEndian.encode().ljust(len(DEFLATED), b"\0")
    return BytesIO(content[:end].replace(DEFLATED, plain) + data)


@dataclass(frozen=True)
class _StoredVoxels:
    """The size of the voxels in a file."""

    length: int  # bytes; COMPRESSED if the header does not give it
    left: int  # bytes from the first voxel to the end of the file


def _read(path: Path) -> tuple[pydicom.Dataset, _StoredVoxels | None]:
    """Read the header of a file. The second value is None if the file has no voxels."""
    with open_dicom(path) as file:
        size = file.seek(0, SEEK_END)
        file.seek(0)
        dataset = pydicom.dcmread(
            file, specific_tags=sorted(_KEYWORDS), defer_size=LONGEST_VALUE, force=True
        )
    voxels = None
    for element in list(dataset.values()):
        if not isinstance(element, RawDataElement):
            continue  # a sequence
        if element.tag == VOXELS:
            voxels = _StoredVoxels(element.length, size - element.value_tell)
        if element.length > LONGEST_VALUE:
            del dataset[element.tag]  # else pydicom would read it when it is used
    return dataset, voxels


def _plain_slice(path: Path, dataset: pydicom.Dataset, voxels: _StoredVoxels | None) -> DicomSlice:
    axes = numbers(dataset, "ImageOrientationPatient", 6).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > UNIT_TOLERANCE:
        raise DamagedSliceError(
            f"ImageOrientationPatient is {text_of(dataset, 'ImageOrientationPatient')}; expected "
            "two perpendicular directions of length 1"
        )
    spacing_mm = numbers(dataset, "PixelSpacing", 2)
    if (spacing_mm <= 0).any():
        raise DamagedSliceError(
            f"PixelSpacing is {text_of(dataset, 'PixelSpacing')}; expected two lengths above 0"
        )
    rows, columns = (whole(dataset, name, 1, MOST_SIDE) for name in ("Rows", "Columns"))
    samples = whole(dataset, "SamplesPerPixel", 1, 4, otherwise=1)
    frames = whole(dataset, "NumberOfFrames", 1, MOST_FRAMES, otherwise=1)
    bits = whole(dataset, "BitsAllocated", 8, 32)
    if voxels is None:
        raise DamagedSliceError("it has no voxels")
    voxel_bytes = rows * columns * samples * frames * bits // 8
    stored_bytes = min(voxels.length, voxels.left)
    if voxels.length != COMPRESSED and stored_bytes < voxel_bytes:
        raise DamagedSliceError(f"it has {stored_bytes} of {voxel_bytes} bytes of voxels")
    colours = text_of(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    return DicomSlice(
        path, _labels(dataset), numbers(dataset, "ImagePositionPatient", 3), axes, spacing_mm,
        (rows, columns), frames,
        is_coloured=samples > 1 or not colours.startswith("MONOCHROME"), is_enhanced=False,
        stored_bytes=stored_bytes, voxel_bytes=voxel_bytes,
    )  # fmt: skip


def _enhanced_slice(path: Path, dataset: pydicom.Dataset) -> DicomSlice:
    frames = whole(dataset, "NumberOfFrames", 1, MOST_FRAMES, otherwise=1)
    return DicomSlice(
        path, _labels(dataset), np.zeros(3), np.zeros((2, 3)), np.zeros(2), (0, 0), frames,
        is_coloured=False, is_enhanced=True, stored_bytes=0, voxel_bytes=0,
    )  # fmt: skip


def _labels(dataset: pydicom.Dataset) -> SliceLabels:
    try:
        number = str(whole(dataset, "SeriesNumber", -(2**31), 2**31 - 1))
    except DamagedSliceError:
        number = ""
    try:
        instance = whole(dataset, "InstanceNumber", -(2**31), 2**31 - 1)
    except DamagedSliceError:
        instance = None
    return SliceLabels(
        instance=instance,
        uid=text_of(dataset, "SeriesInstanceUID"),
        number=number,
        description=text_of(dataset, "SeriesDescription"),
        modality=text_of(dataset, "Modality"),
        stack={keyword: text_of(dataset, keyword) for keyword in STACK_FIELDS},
        patient={keyword: text_of(dataset, keyword) for keyword in (ID, *PERSON)},
        acquired=acquired(dataset),
    )
