"""The slow change of brightness over a scan that coils make, divided out: N4.

Tustison et al., "N4ITK", IEEE TMI 2010, with the settings of the MSSEG-2 challenge's preparation.
"""

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.registration import isotropic, on_grid

FWHM = 0.3  # of the bias field's histogram
ITERATIONS = (50, 40, 30)  # by resolution level
SHRINK = 4  # voxels of the image for one that the field is fitted to
CONTROL_POINTS = 4  # by axis, at the first level
ROUGH_MM = 6.0  # voxel side where a registration or a threshold is all it is for


def correct_bias(image: sitk.Image, mask: sitk.Image, rough: bool = False) -> sitk.Image:
    """The image divided by its bias field, fitted inside the mask: float32.

    Args:
      rough: fitted to a coarser image, for a first look.

    Outside the mask the field is held within the values that it has inside. Its geometric mean
    inside is 1.
    """
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetBiasFieldFullWidthAtHalfMaximum(FWHM)
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.SetNumberOfControlPoints((CONTROL_POINTS,) * 3)
    if rough:
        small = isotropic(image, ROUGH_MM)
        small_mask = on_grid(mask, small)
    else:
        factors = [min(SHRINK, size) for size in image.GetSize()]
        small, small_mask = sitk.Shrink(image, factors), sitk.Shrink(mask, factors)
    n4.Execute(small, sitk.Cast(small_mask, sitk.sitkUInt8))
    field = n4.GetLogBiasFieldAsImage(image)
    inside = sitk.GetArrayFromImage(field)[sitk.GetArrayFromImage(mask) > 0]
    field = sitk.Clamp(field, sitk.sitkFloat32, float(inside.min()), float(inside.max()))
    field -= float(inside.mean())  # N4 leaves the gain open, and it differs between runs
    return sitk.Cast(image, sitk.sitkFloat32) / sitk.Exp(field)


def field_range(before: sitk.Image, after: sitk.Image, mask: sitk.Image) -> float:
    """The bias field's largest over its smallest value inside the mask."""
    inside = sitk.GetArrayFromImage(mask) > 0
    a, b = (sitk.GetArrayFromImage(image)[inside] for image in (before, after))
    ratio = a[b > 0] / b[b > 0]
    ratio = ratio[ratio > 0]
    return float(np.max(ratio) / np.min(ratio)) if ratio.size else 1.0
