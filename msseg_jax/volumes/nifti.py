"""Read and write NIfTI files."""

import contextlib
import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike

from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_output
from msseg_jax.volumes.geometry import (
    LONGEST_QUATERNION,
    choose_geometry,
    is_in_header,
    with_valid_quaternion,
)
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.names import SUFFIXES, stem
from msseg_jax.volumes.stored_size import check_stored_size, check_to_end, is_gzip
from msseg_jax.volumes.volume import Volume

LAST_CODE = 5  # of NIfTI's spaces: template
LARGEST = 1e12  # of voxels; sums of squares of larger ones overflow in single precision

_EXPECTED = "Expected a 3-D NIfTI image (.nii, .nii.gz, or .hdr with .img)."

logger = logging.getLogger(__name__)


def read_volume(path: Path | str) -> Volume:
    """Read a 3-D NIfTI image as float32. Log a warning if its header is contradictory.

    Raises:
      InputError: the file is missing, not NIfTI, truncated, not 3-D, RGB or complex, or has an
        invalid header. NaN and infinite voxels are not checked here; the caller can do so with
        `check_finite`.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder. {_EXPECTED}")
    if not path.is_file():
        raise InputError(f"{path}: no such file. {_EXPECTED}")
    try:
        volume = _read(path)
    except InputError:
        raise
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise InputError(
            f"{path}: is not a readable NIfTI image ({error}). {_EXPECTED} Check whether it is a "
            "file of another kind, or a damaged copy."
        ) from error
    except FileNotFoundError as error:
        other = Path(error.filename or path)
        raise InputError(
            f"{other}: no such file. {path.name} is one of two files, .hdr and .img, and needs the "
            "other. Copy both into one folder."
        ) from error
    except Exception as error:  # a damaged file makes nibabel fail in many ways
        raise InputError(
            f"{path}: cannot be read to its end ({error}). It is truncated or damaged. Copy it "
            "again."
        ) from error
    for warning in volume.warnings:
        logger.warning("%s", warning)
    return volume


def _read(path: Path) -> Volume:
    with contextlib.ExitStack() as files:
        image, places, streams = _open(path, files)
        # nibabel silently corrects a zero or negative size, a missing offset and an unknown code,
        # so these are read from the file.
        of_header = image.file_map.get("header", image.file_map["image"])
        with of_header.get_prepare_fileobj("rb") as file:
            stored = type(image.header).from_fileobj(file, check=False)
        _check_codes(path, stored)
        _check_kind(path, image)
        _check_offset(path, image, int(stored["vox_offset"]))
        check_stored_size(path, image, places["image"], int(stored["vox_offset"]))
        volume = volume_of(image, path, stored["pixdim"][1:4])
        for stream in streams:
            check_to_end(path, stream)
    return volume


def _open(
    path: Path, files: contextlib.ExitStack
) -> tuple[nib.Nifti1Pair, dict[str, Path], list[gzip.GzipFile]]:
    """Open an image, but do not read its voxels.

    Args:
      files: closes the compressed files.

    Returns:
      The image, its files ('image', and for a pair of files also 'header'), and the streams of
      those that are compressed.
    """
    suffix = path.name.removeprefix(stem(path))
    kind: type[nib.Nifti1Pair] | None = None
    places = {"image": path}
    if suffix in (suffix.lower(), suffix.upper()):
        image = _load(path)
        if not isinstance(image, nib.Nifti1Pair):  # the other classes of NIfTI are subclasses
            raise InputError(f"{path}: is {type(image).__name__}. {_EXPECTED} Convert it.")
        kind = type(image)
        places = {key: Path(str(holder.filename)) for key, holder in image.file_map.items()}
        if not any(map(is_gzip, places.values())):
            return image, places, []
    # nibabel does not read a compressed file to its end, where the checksum is, so the streams are
    # opened here. It does not find the file of a name such as A.Nii.Gz, either.
    streams = {
        key: files.enter_context((gzip.GzipFile if is_gzip(place) else open)(place, "rb"))
        for key, place in places.items()
    }
    if kind is None:
        start = streams["image"].read(7)
        kind = nib.Nifti2Image if start[4:7] == b"n+2" else nib.Nifti1Image
    holders = {key: nib.FileHolder(fileobj=stream) for key, stream in streams.items()}
    packed = [stream for stream in streams.values() if isinstance(stream, gzip.GzipFile)]
    return kind.from_file_map(holders), places, packed


def _load(path: Path) -> nib.filebasedimages.FileBasedImage:
    try:
        return nib.load(path)
    except ValueError as error:
        if "w2 should be positive" not in str(error):  # nibabel's words for a long quaternion
            raise
        with nib.openers.ImageOpener(str(path)) as file:
            with_valid_quaternion(nib.Nifti1Header.from_fileobj(file, check=False), path)
        return _LenientImage.from_filename(path)


class _LenientHeader(nib.Nifti1Header):
    """Accepts quaternions that rounding made too long."""

    quaternion_threshold = np.float64(1 - LONGEST_QUATERNION**2)


class _LenientImage(nib.Nifti1Image):
    header_class = _LenientHeader


def volume_of(image: nib.Nifti1Pair, path: Path, stored_mm: np.ndarray | None = None) -> Volume:
    """Return an image as a volume: 3-D float32.

    Args:
      path: names the volume in messages.
      stored_mm: (3,), voxel sides as they are in the file; None takes those of the header.

    Raises:
      InputError: as for `read_volume`.
    """
    _check_kind(path, image)
    header = image.header
    if stored_mm is None:  # an image in memory, with an affine that may have been changed
        header = _with_affine(header, image.affine)
        stored_mm = header["pixdim"][1:4]
    geometry = choose_geometry(header, image.shape, path, stored_mm)
    array = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    return Volume(
        path, array, geometry.affine, geometry.header, geometry.other_affine, geometry.warnings
    )


def _with_affine(header: nib.Nifti1Header, affine: np.ndarray) -> nib.Nifti1Header:
    """Return a header that holds an affine. nibabel writes a changed affine only into a file."""
    if np.allclose(affine, header.get_best_affine()):
        return header
    header = header.copy()
    header.set_sform(affine, code="aligned")
    header.set_qform(affine, code="unknown")  # sets the voxel sizes
    return header


def _check_kind(path: Path, image: nib.Nifti1Pair) -> None:
    """Raise InputError if the header shows that the voxels cannot be used.

    The voxels are not read.
    """
    dtype = image.get_data_dtype()
    if dtype.kind not in "iufb":
        kind = "complex" if dtype.kind == "c" else "RGB"
        raise InputError(
            f"{path}: voxels are {kind} ({dtype}). Expected one real number per voxel. "
            "Export the magnitude image."
        )
    # A trailing dimension of 1, as ANTs and SPM write it, is harmless.
    if len(image.shape) < 3 or any(size != 1 for size in image.shape[3:]):
        raise InputError(
            f"{path}: has {len(image.shape)} dimensions, {image.shape}. Expected 3. "
            "Write one volume per file."
        )
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: its unit of length is {unit}. Expected mm. Correct the header.")


def _check_offset(path: Path, image: nib.Nifti1Pair, offset: int) -> None:
    """Raise InputError if the voxels would start inside the header."""
    first = image.header.single_vox_offset
    if isinstance(image, nib.Nifti1Image) and offset < first:
        raise InputError(
            f"{path}: vox_offset is {offset}, so the voxels would start inside the header. "
            f"Expected at least {first}. Correct the header, or write the file again."
        )


def _check_codes(path: Path, stored: nib.Nifti1Header) -> None:
    """Raise InputError if a code of the geometry is unknown. nibabel would ignore that geometry."""
    for name in ("qform_code", "sform_code"):
        code = int(stored[name])
        if not 0 <= code <= LAST_CODE:
            raise InputError(
                f"{path}: {name} of its header is {code}. Expected 0 to {LAST_CODE}. Correct the "
                "header, or write the file again."
            )


def check_finite(volume: Volume) -> None:
    """Raise InputError if a voxel is NaN, infinite, or too large to compute with."""
    wrong = int(volume.array.size - np.isfinite(volume.array).sum())
    if wrong:
        raise InputError(
            f"{volume.path}: {wrong} voxels are NaN or infinite. Expected finite numbers. "
            "Set them to 0, or export the image again."
        )
    if (largest := float(np.abs(volume.array).max())) > LARGEST:
        raise InputError(
            f"{volume.path}: the largest value is {largest:.3g}. Expected at most {LARGEST:g}. "
            "Export the image again, or scale its values down."
        )


def read_checked(
    path: Path,
    like: Volume | None,
    problems: list[str],
    read: Callable[[Path], Volume] = read_volume,
) -> Volume | None:
    """Read a volume, and check that it is finite and on the grid of `like`.

    Args:
      like: None skips the check of the grid.
      problems: a message is added for each check that fails.
      read: returns the volume of a path.

    Returns:
      None if the volume cannot be read, or is not finite.
    """
    try:
        volume = read(path)
        check_finite(volume)
    except InputError as error:
        problems.append(str(error))
        return None
    if like is not None and (difference := grid_difference(like, volume)):
        problems.append(difference)
    return volume


def write_volume(path: Path | str, array: np.ndarray, like: Volume) -> None:
    """Write `array` (D, H, W) on the grid of `like`, with its affine, codes and units.

    The file appears only when it is complete.

    Raises:
      InputError: The name or the folder of `path` cannot be used.
    """
    path = check_output(Path(path), SUFFIXES)
    header = like.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # If the header holds the affine, it is kept as it is. Another program then sees the new image
    # where it sees `like`, even if qform and sform disagree.
    affine = None if is_in_header(like.affine, header) else like.affine
    _save(path, kind(array, affine, header))


def write_array(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    dtype: DTypeLike | None = None,
    code: str = "scanner",
    time_unit: str = "unknown",
) -> None:
    """Write `array` (D, H, W) on the grid of an affine in mm.

    The file appears only when it is complete.

    Args:
      affine: (4, 4), voxel indices to scanner mm.
      dtype: type of the voxels in the file; None keeps that of the array. If real numbers are
        written as integers, they are scaled to the full range of the integer type.
      code: NIfTI's name for the space that the affine leads to: "scanner" or "aligned".
      time_unit: "sec" or "unknown".
    """
    image = nib.Nifti1Image(array, affine)
    if dtype is not None:
        image.header.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm", time_unit)
    image.set_qform(affine, code=code)
    image.set_sform(affine, code=code)
    _save(path, image)


def _save(path: Path, image: nib.Nifti1Image) -> None:
    """Write an image to a file, completely or not at all.

    The bytes depend only on the image, because nibabel stores no time and no name in gzip files.
    """
    write_beside(path, lambda partial: nib.save(image, partial))
