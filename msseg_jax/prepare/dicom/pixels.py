"""Read the voxels of a checked stack of DICOM files as one image.

ITK's reader (GDCM) decodes the voxels, because it knows all usual ways to compress them. It sees
only copies with the few elements that an image needs, which pydicom has read and checked. In
original files whose lengths are misread, because of a wrong length or transfer syntax, GDCM can
reserve gigabytes and take minutes. Where the voxels are compressed, GDCM believes the size in the
compressed data, so that is checked too.
"""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from msseg_jax.prepare.dicom.codestream import EncodedSize, encoded_size
from msseg_jax.prepare.dicom.header import DicomSlice, open_dicom
from msseg_jax.prepare.dicom.values import quiet
from msseg_jax.system.errors import InputError

# Everything that GDCM needs to decode the voxels, and ITK to place them.
_KEYWORDS = (
    "SOPClassUID", "Modality", "SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient",
    "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
    "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleIntercept", "RescaleSlope", "PixelData",
)  # fmt: skip
# Transfer syntaxes of files that do not name it, by (are types implicit, is it little endian).
PLAIN: dict[tuple[bool | None, bool | None], UID] = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
# Compression of whole series: lossless methods reach 2 to 4, lossy ones 20.
MOST_COMPRESSION = 100
ALWAYS_ALLOWED = 2**26  # bytes after decompression


def read_pixels(name: str, ordered: list[DicomSlice]) -> sitk.Image:
    """Read a stack as float32.

    Args:
      name: the series, for messages.
      ordered: the slices in order, as `check_stack` returns them.

    Raises:
      InputError: The voxels cannot be decoded.
    """
    needed = sum(slice_.voxel_bytes for slice_ in ordered)
    stored = sum(slice_.stored_bytes for slice_ in ordered)
    if needed > max(ALWAYS_ALLOWED, MOST_COMPRESSION * stored):
        raise InputError(
            f"{name}: would take {needed / 1e6:.0f} MB after decompression, but its files hold "
            f"{stored / 1e6:.1f} MB; expected at most {MOST_COMPRESSION} times as much. Rows or "
            "Columns are probably wrong. Export it again."
        )
    with TemporaryDirectory(prefix="msseg_dicom_") as folder:
        copies = [Path(folder) / f"{number}.dcm" for number in range(len(ordered))]
        for slice_, copy in zip(ordered, copies, strict=True):
            _write_copy(slice_.path, copy)
        reader = sitk.ImageSeriesReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileNames([str(copy) for copy in copies])
        reader.SetOutputPixelType(sitk.sitkFloat32)
        try:
            return reader.Execute()
        except RuntimeError as error:
            raise InputError(
                f"{name}: cannot be read ({_last_line(error)}). It is damaged, or compressed in a "
                "way that is not supported. Export it again."
            ) from error


def _write_copy(path: Path, copy: Path) -> None:
    """Write the elements in _KEYWORDS of a file to another one."""
    try:
        with quiet(), open_dicom(path) as file:
            content = _reduced(pydicom.dcmread(file, specific_tags=list(_KEYWORDS), force=True))
    except Exception as error:  # pydicom raises errors of many classes for damaged files
        raise InputError(
            f"{path}: its voxels cannot be read ({error}). Copy or export the file again."
        ) from error
    try:
        copy.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{copy.parent}: a temporary copy of {path} cannot be written ({error}); expected a "
            "folder with free space. Set TMPDIR to another folder."
        ) from error


def _reduced(source: pydicom.FileDataset) -> bytes:
    """Return a DICOM file with the elements in _KEYWORDS.

    Raises:
      ValueError: The compressed data hold an image of another size.
    """
    reduced = pydicom.Dataset()
    for keyword in _KEYWORDS:
        if keyword in source:
            reduced[keyword] = source[keyword]
    reduced.setdefault("SOPClassUID", MRImageStorage)
    reduced.SOPInstanceUID = generate_uid()
    reduced.file_meta = FileMetaDataset()
    syntax = source.file_meta.get("TransferSyntaxUID") or PLAIN[source.original_encoding]
    reduced.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
        expected = EncodedSize(source.Rows, source.Columns, samples=1)
        frame = next(generate_frames(source.PixelData, number_of_frames=1))
        found = encoded_size(frame)
        if found not in (None, expected):
            raise ValueError(f"the compressed image is {found}, and the header says {expected}")
        # Written again, because GDCM also believes the lengths of the fragments.
        reduced.PixelData = encapsulate([frame])
        reduced["PixelData"].is_undefined_length = True
    with BytesIO() as content:
        reduced.save_as(content, enforce_file_format=True)
        return content.getvalue()


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
