"""Correct the bias field of a scan with N4.

The receive coils cause a slow change of brightness over a scan, the bias field. N4 is described in
Tustison et al., "N4ITK", IEEE TMI 2010. The settings are those with which the data of the MSSEG-2
challenge were prepared.
"""

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.images import as_float32, inside_of
from msseg_jax.prepare.registration import isotropic, on_grid

FWHM = 0.3  # full width at half maximum of the bias field's histogram
ITERATIONS = (50, 40, 30)  # at each resolution level
SHRINK = 4  # factor by which the image is subsampled along each axis before the fit
CONTROL_POINTS = 4  # along each axis, at the first level
ROUGH_MM = 6.0  # voxel side of the rough fit, which is enough for registrations and thresholds


def correct_bias(image: sitk.Image, mask: sitk.Image, rough: bool = False) -> sitk.Image:
    """Divide an image by its bias field, which is fitted inside the mask: float64.

    Outside the mask, the field is clipped to the range of its values inside. Its geometric mean
    inside the mask is 1.

    Args:
      rough: Fit the field to a coarser image. This is faster, for intermediate results.
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
    # N4 takes logarithms. It does not leave out voxels of 0 by itself.
    small_mask = sitk.Cast((small_mask > 0) & (small > 0), sitk.sitkUInt8)
    n4.Execute(small, small_mask)
    # Each line replaces the field, so that few images of full size exist at the same time.
    field = n4.GetLogBiasFieldAsImage(image)
    inside = inside_of(field, mask)
    field = sitk.Clamp(field, sitk.sitkFloat32, float(inside.min()), float(inside.max()))
    field -= float(inside.mean())  # N4 does not fix the gain, and it differs between runs
    field = sitk.Exp(field)
    return as_float32(image) / field


def field_range(before: sitk.Image, after: sitk.Image, mask: sitk.Image) -> float:
    """Return the ratio of the bias field's largest to its smallest value inside the mask."""
    a, b = (inside_of(image, mask) for image in (before, after))
    ratio = a[b > 0] / b[b > 0]
    ratio = ratio[ratio > 0]
    return float(np.max(ratio) / np.min(ratio)) if ratio.size else 1.0
