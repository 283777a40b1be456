"""Accept an image as a path, a nibabel image or an array."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.nifti import read_volume, volume_of
from msseg_jax.volumes.volume import Volume

Image: TypeAlias = str | os.PathLike[str] | nib.Nifti1Image | np.ndarray


def as_volume(image: Image, name: str, affine: Any = None) -> Volume:
    """Return a copy of an image as a volume: 3-D float32.

    Args:
      image: a path, a nibabel image, or an array (D, H, W).
      name: names an image that is not a file, in messages and in reports.
      affine: (4, 4), voxel indices to scanner mm (RAS). Only arrays need it.

    Raises:
      InputError: the image cannot be used, or `affine` is missing or not valid.
    """
    if isinstance(image, str | os.PathLike):
        return read_volume(path_of(image))
    if isinstance(image, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array. Expected a plain one. Use `.filled(0)`.")
    if isinstance(image, np.ndarray):
        image = nib.Nifti1Image(_as_float32(image, name), _checked_affine(affine, name))
    elif not isinstance(image, nib.Nifti1Image) or image.affine is None:
        raise InputError(
            f"{name} is {type(image).__name__}. Expected a path, a NIfTI image of nibabel with an "
            "affine, or a NumPy array (D, H, W)."
        )
    try:
        volume = volume_of(image, Path(name))
    except InputError:
        raise
    except Exception as error:  # a file that is damaged or gone makes nibabel fail in many ways
        raise InputError(f"{name}: its voxels cannot be read ({error}). Load it again.") from error
    if not volume.array.size:
        raise InputError(f"{name} has no voxels; its shape is {volume.array.shape}.")
    # Copies, so that later changes of the caller's objects do not change the result.
    header, matrix = volume.header.copy(), volume.affine.copy()
    return replace(volume, array=volume.array.copy(), affine=matrix, header=header)


def path_of(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path, which stays valid if the program changes its working folder."""
    return Path(path).absolute()


def files_of(*images: Image | None) -> tuple[Path, ...]:
    """Return the files that the images come from, as far as that is known."""
    paths = []
    for image in images:
        if isinstance(image, str | os.PathLike):
            paths.append(path_of(image))
        elif isinstance(image, nib.Nifti1Image) and (filename := image.get_filename()):
            paths.append(path_of(filename))
        elif isinstance(image, np.memmap) and image.filename:
            paths.append(path_of(image.filename))
    return tuple(paths)


def _as_float32(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "biuf" or array.ndim != 3:
        raise InputError(
            f"{name} is an array of {array.dtype} with shape {array.shape}. Expected real numbers "
            "with three dimensions (D, H, W)."
        )
    return array.astype(np.float32)


def _checked_affine(affine: Any, name: str) -> np.ndarray:
    expected = (
        "Expected a (4, 4) array of finite numbers that maps voxel indices to scanner mm, such as "
        "`nibabel.load(path).affine`."
    )
    if affine is None:
        raise InputError(f"{name} is an array, and its affine is missing. {expected}")
    try:
        matrix = np.array(affine)
        if matrix.dtype.kind not in "iuf":
            raise TypeError(f"its type is {matrix.dtype}")
        matrix = matrix.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"affine is not an array of numbers ({error}). {expected}") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"affine is {matrix.tolist()}. {expected}")
    if not np.array_equal(matrix[3], [0, 0, 0, 1]) or np.linalg.det(matrix[:3, :3]) == 0:
        raise InputError(f"affine is {matrix.tolist()}, which cannot be inverted. {expected}")
    return matrix
