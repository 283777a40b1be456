"""Accept an image as a path, a nibabel image or an array."""

import os
from pathlib import Path
from typing import TypeAlias

import nibabel as nib
import numpy as np

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.nifti import read_volume, volume_of
from msseg_jax.volumes.volume import Volume

Image: TypeAlias = str | os.PathLike[str] | nib.Nifti1Image | np.ndarray


def as_volume(image: Image, name: str, affine: np.ndarray | None) -> Volume:
    """Return an image as a volume: 3-D float32.

    Args:
      image: a path, a nibabel image, or an array (D, H, W).
      name: names an image that is not a file, in messages and in reports.
      affine: (4, 4), voxel indices to scanner mm (RAS). Only arrays need it.

    Raises:
      InputError: the image cannot be used, or `affine` is missing or not (4, 4).
    """
    if isinstance(image, str | os.PathLike):
        return read_volume(Path(image))
    if isinstance(image, nib.Nifti1Image):
        return volume_of(image, Path(name))
    if affine is None or np.shape(affine) != (4, 4):
        found = "missing" if affine is None else f"an array of shape {np.shape(affine)}"
        raise InputError(
            f"{name} is an array, and its affine is {found}. Expected a (4, 4) array that maps "
            "voxel indices to scanner mm, such as `nibabel.load(path).affine`."
        )
    array = np.asarray(image)
    if array.dtype == bool or array.dtype.kind in "iu":
        array = array.astype(np.float32)  # nibabel refuses bool and int64
    return volume_of(nib.Nifti1Image(array, np.asarray(affine, float)), Path(name))


def path_of(image: Image, name: str) -> Path:
    """Return the path of an image, or its name if it is not a file."""
    return Path(image) if isinstance(image, str | os.PathLike) else Path(name)
