"""From NIfTI's world to ITK's and back."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.volumes.nifti import write_array

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
PEAK_PERCENTILE = 98.0  # of what is brighter than the mean: fat and vessels lie above
USUAL_PEAK = 1.5  # in the usual brightness: brighter is cut where whole heads are compared
FAT = (1.5, 2.5)  # in the brain's brightness; lesions and coils reach the first, the second is fat


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


def by_usual(image: sitk.Image) -> sitk.Image:
    """The image in the median of what is brighter than its mean: float32.

    That is 0.87 to 0.99 of the brain's brightness in the scans that were looked at, however bright
    fat is; with much neck in view it is less.
    """
    array = sitk.GetArrayFromImage(image)
    return sitk.Cast(image, sitk.sitkFloat32) / float(np.median(array[array > array.mean()]))


def capped(image: sitk.Image) -> sitk.Image:
    """Of an image `by_usual`, 0 to USUAL_PEAK."""
    return sitk.Clamp(image, sitk.sitkFloat32, 0.0, USUAL_PEAK)


def without_fat(image: sitk.Image, brain: float) -> sitk.Image:
    """The image from 0 to 1, darker again from where it is brighter than any brain.

    Where fat is not suppressed, the scalp is the brightest of all, and its edge as strong as the
    brain's.

    Args:
      brain: the brain's brightness.
    """
    start, end = (share * brain for share in FAT)
    return sitk.Clamp(
        sitk.Minimum(image / start, (end - image) / (end - start)), sitk.sitkFloat32, 0.0, 1.0
    )


def write_image(path: Path, image: sitk.Image, dtype: type) -> None:
    """Write a NIfTI file. Real numbers as integers are scaled to the whole range of these."""
    write_array(path, array_of(image), affine_of(image), dtype=dtype, code="aligned")
