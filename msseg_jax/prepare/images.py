"""Convert images between NIfTI and ITK, and normalise their brightness."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.volumes.nifti import write_array

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
PEAK_PERCENTILE = 98.0  # of the voxels brighter than the mean; fat and vessels lie above it
USUAL_PEAK = 1.5  # multiple of the usual brightness (`by_usual`) at which whole heads are clipped
# Multiples of the brain's brightness. Lesions and bias can reach the first, fat has the second.
FAT = (1.5, 2.5)


def image_of(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Make an image from voxels (i, j, k) and nibabel's affine (voxel indices to RAS mm)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    axes = RAS_TO_LPS @ affine[:3, :3]
    spacing_mm = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin((RAS_TO_LPS @ affine[:3, 3]).tolist())
    image.SetDirection((axes / spacing_mm).ravel().tolist())
    return image


def array_of(image: sitk.Image) -> np.ndarray:
    """Return a copy of the voxels (i, j, k)."""
    return sitk.GetArrayFromImage(image).T


def is_set(mask: sitk.Image) -> np.ndarray:
    """Return which voxels of a mask are not 0: (i, j, k) bool."""
    inside: np.ndarray = sitk.GetArrayViewFromImage(mask).T > 0
    return inside


def as_float32(image: sitk.Image) -> sitk.Image:
    """Return an image as float32. It is copied only if it is of another type."""
    if image.GetPixelID() == sitk.sitkFloat32:
        return image
    return sitk.Cast(image, sitk.sitkFloat32)


def inside_of(image: sitk.Image, mask: sitk.Image) -> np.ndarray:
    """Return the values of an image inside a mask on its grid: (N,)."""
    # Views, because a copy of a large scan takes hundreds of MB.
    values: np.ndarray = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(mask) > 0]
    return values


def affine_of(image: sitk.Image) -> np.ndarray:
    """Return nibabel's affine (4, 4) of an image: voxel indices to RAS mm."""
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = RAS_TO_LPS @ direction * np.array(image.GetSpacing())
    affine[:3, 3] = RAS_TO_LPS @ np.array(image.GetOrigin())
    return affine


def volume_ml(mask: sitk.Image) -> float:
    """Return the volume of the voxels that are 1, in ml."""
    return float(sitk.GetArrayViewFromImage(mask).sum() * np.prod(mask.GetSpacing()) / 1000)


def without_peaks(image: sitk.Image) -> sitk.Image:
    """Scale an image to the range from 0 to 1, and clip its brightest voxels, for registrations."""
    peak = float(np.percentile(_bright(image), PEAK_PERCENTILE, overwrite_input=True))
    image = sitk.Clamp(image, sitk.sitkFloat32, 0.0, peak)  # the other one may be freed now
    return image / peak


def by_usual(image: sitk.Image) -> sitk.Image:
    """Divide an image by the median of the voxels that are brighter than its mean: float32.

    In the scans that were examined, this median is 0.87 to 0.99 of the brain's brightness. It does
    not depend on the brightness of fat. If much of the neck is in view, it is lower.
    """
    return as_float32(image) / float(np.median(_bright(image), overwrite_input=True))


def _bright(image: sitk.Image) -> np.ndarray:
    """Return the values of an image that are above its mean: (N,)."""
    array = sitk.GetArrayViewFromImage(image)
    values: np.ndarray = array[array > array.mean()]
    return values


def capped(image: sitk.Image) -> sitk.Image:
    """Clip an image that `by_usual` returned to 0 to USUAL_PEAK."""
    return sitk.Clamp(image, sitk.sitkFloat32, 0.0, USUAL_PEAK)


def without_fat(image: sitk.Image, brain: float) -> sitk.Image:
    """Scale an image to the range from 0 to 1, and darken voxels that are brighter than any brain.

    Without fat suppression, the scalp is the brightest tissue. Its edge is then as strong as the
    edge of the brain.

    Args:
      brain: brightness of the brain.
    """
    start, end = (share * brain for share in FAT)
    return sitk.Clamp(
        sitk.Minimum(image / start, (end - image) / (end - start)), sitk.sitkFloat32, 0.0, 1.0
    )


def write_image(path: Path, image: sitk.Image, dtype: type) -> None:
    """Write a NIfTI file. Real numbers are scaled to the whole range of an integer `dtype`."""
    voxels = sitk.GetArrayViewFromImage(image).T
    write_array(path, voxels, affine_of(image), dtype=dtype, code="aligned")
