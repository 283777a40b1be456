"""Read and write NIfTI files."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike

from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.volume import Volume

SUFFIXES = (".nii.gz", ".nii")


def read_volume(path: Path | str) -> Volume:
    """Read a 3-D NIfTI image as float32.

    Raises:
      InputError: missing, no NIfTI, truncated, not 3-D, RGB or complex, or a voxel size or unit
        that makes no sense. NaN and infinite voxels are the caller's to refuse (`check_finite`).
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a 3-D NIfTI image (.nii or .nii.gz)")
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a 3-D NIfTI image (.nii or .nii.gz)")
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):  # NIfTI-2 is a subclass
            raise InputError(
                f"{path}: is {type(image).__name__}; expected NIfTI (.nii or .nii.gz): convert it"
            )
        _check_kind(path, image)
        array = np.asarray(image.dataobj, dtype=np.float32)
    except InputError:
        raise
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise InputError(
            f"{path}: no readable NIfTI image, whatever its name says ({error}); expected a 3-D "
            "one: is it a file of another kind, or a damaged copy?"
        ) from error
    except Exception as error:  # a damaged file makes nibabel fail in many ways
        raise InputError(
            f"{path}: cannot be read to its end ({error}): truncated or damaged; copy it again"
        ) from error
    return Volume(path, array, image.affine, image.header)


def _check_kind(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse what the header alone shows to be unusable, before its voxels are read."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iufb":
        kind = "complex" if dtype.kind == "c" else "RGB"
        raise InputError(
            f"{path}: voxels are {kind} ({dtype}); expected one real number per voxel: "
            "export the magnitude image"
        )
    if len(image.shape) != 3:
        raise InputError(
            f"{path}: has {len(image.shape)} dimensions, {image.shape}; expected 3: "
            "write one volume per file"
        )
    # nibabel mends a zero or negative size in silence, so look at what the file says.
    with nib.openers.ImageOpener(str(path)) as file:
        stored = type(image.header).from_fileobj(file, check=False)["pixdim"][1:4]
    sizes = np.concatenate([stored, nib.affines.voxel_sizes(image.affine)])
    if not (np.isfinite(image.affine).all() and np.isfinite(sizes).all() and (sizes > 0).all()):
        raise InputError(
            f"{path}: voxel size is {tuple(float(s) for s in stored)} mm; expected three positive "
            "numbers and a finite affine: mend the header (pixdim, sform, qform)"
        )
    if abs(np.linalg.det(image.affine[:3, :3] / nib.affines.voxel_sizes(image.affine))) < 1e-3:
        raise InputError(
            f"{path}: two axes of its affine are parallel; expected an invertible one: mend the "
            "sform"
        )
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: its unit of length is {unit}; expected mm: rewrite the header")


def check_finite(volume: Volume) -> None:
    """Raises InputError if a voxel is NaN or infinite."""
    wrong = int(volume.array.size - np.isfinite(volume.array).sum())
    if wrong:
        raise InputError(
            f"{volume.path}: {wrong} voxels are NaN or infinite; expected finite numbers: "
            "set them to 0 or export the image again"
        )


def read_checked(path: Path, like: Volume | None, problems: list[str]) -> Volume | None:
    """A finite volume on the grid of `like`; what is wrong with it is added to `problems`.

    None where it cannot be read at all.
    """
    try:
        volume = read_volume(path)
        check_finite(volume)
    except InputError as error:
        problems.append(str(error))
        return None
    if like is not None and (difference := grid_difference(like, volume)):
        problems.append(difference)
    return volume


def check_output(path: Path | str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The path of a file to write. Raises InputError if its name or folder will not do."""
    path = Path(path)
    if not path.name.endswith(suffixes):
        raise InputError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist: make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} cannot be written: choose another")
    return path


def write_volume(path: Path | str, array: np.ndarray, like: Volume) -> None:
    """Write `array` (D, H, W) on the grid of `like`, with its affine, codes and units.

    The file appears when it is complete.

    Raises:
      InputError: The name or the folder of `path` cannot be used.
    """
    path = check_output(path)
    header = like.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    _save(path, kind(array, like.affine, header))


def write_array(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    dtype: DTypeLike | None = None,
    code: str = "scanner",
    time_unit: str = "unknown",
) -> None:
    """Write `array` (D, H, W) on a grid of its own, in mm. The file appears when it is complete.

    Args:
      affine: (4, 4), voxel indices to scanner mm.
      dtype: of the voxels in the file; None is that of the array. Real numbers that are written
        as integers are scaled to the whole range of these.
      code: what the affine leads to, in NIfTI's words: "scanner" or "aligned".
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
    """Write a file whose bytes depend only on the image: nibabel's gzip has no time and no name."""
    write_beside(path, lambda partial: nib.save(image, partial))
