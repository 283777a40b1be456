"""From NIfTI's world to ITK's and back."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
PEAK_PERCENTILE = 98.0  # of what is brighter than the mean: fat and vessels lie above


def image_of(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An image from voxels (i, j, k) and nibabel's affine (voxel indices to RAS mm)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    axes = RAS_TO_LPS @ affine[:3, :3]
    spacing_mm = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin((RAS_TO_LPS @ affine[:3, 3]).tolist())
    image.SetDirection((axes / spacing_mm).ravel().tolist())
    return image


def array_of(image: sitk.Image) -> np.ndarray:
    """The voxels (i, j, k), a copy."""
    return sitk.GetArrayFromImage(image).T


def affine_of(image: sitk.Image) -> np.ndarray:
    """nibabel's affine (4, 4) of an image: voxel indices to RAS mm."""
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = RAS_TO_LPS @ direction * np.array(image.GetSpacing())
    affine[:3, 3] = RAS_TO_LPS @ np.array(image.GetOrigin())
    return affine


def volume_ml(mask: sitk.Image) -> float:
    """Of the voxels that are 1."""
    return float(sitk.GetArrayFromImage(mask).sum() * np.prod(mask.GetSpacing()) / 1000)


def without_peaks(image: sitk.Image) -> sitk.Image:
    """The image from 0 to 1, its few brightest voxels cut: what registrations compare."""
    array = sitk.GetArrayFromImage(image)
    peak = float(np.percentile(array[array > array.mean()], PEAK_PERCENTILE))
    return sitk.Clamp(image, sitk.sitkFloat32, 0.0, peak) / peak


def write_image(path: Path, image: sitk.Image, dtype: type) -> None:
    """Write a NIfTI file; real numbers as integers are scaled to the whole of their range."""
    nifti = nib.Nifti1Image(array_of(image), affine_of(image))
    nifti.header.set_data_dtype(dtype)
    nifti.header.set_xyzt_units("mm")
    for set_form in (nifti.set_sform, nifti.set_qform):
        set_form(nifti.affine, code="aligned")
    nib.save(nifti, path)
