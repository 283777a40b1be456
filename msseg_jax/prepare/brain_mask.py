"""Find the brain in one FLAIR: refine the mask of an atlas at the edges that the image shows."""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from msseg_jax.prepare.registration import on_grid, regrid
from msseg_jax.volumes.grids import bounding_box

LEAST_SPACING_MM = 1.0  # finest voxel spacing at which the edge is searched for
CORE_MM = 8.0  # voxels deeper than this inside the atlas's brain always belong to the brain
ZONE_MM = 8.0  # voxels farther than this outside the atlas's brain never belong to it
TISSUE_SHARE = 0.55  # of the core's median; brighter voxels are tissue, darker ones fluid or bone
FAT_SHARE = 1.5  # of the core's median; outside the atlas's brain, brighter voxels are orbital fat
NECK_MM = 3.0  # half the width of the connections (to dura, eyes, scalp) that are cut
RIM_MM = 1.0  # dilation beyond NECK_MM, which restores brain that the erosion removed
SULCUS_MM = 8.0  # half the width of the gaps that are closed: sulci, fissures, ventricles


def for_edges(image: sitk.Image) -> sitk.Image:
    """Return an image on the voxels on which the edge of the brain is searched for: float32."""
    return regrid(image, np.maximum(image.GetSpacing(), LEAST_SPACING_MM))


def find_brain(image: sitk.Image, prior: sitk.Image) -> sitk.Image:
    """Find the brain, including its fluid, on the grid of the prior: uint8.

    Args:
      image: a FLAIR, roughly corrected for bias, from `for_edges`.
      prior: uint8, the brain mask of an atlas, correct to about ZONE_MM.
    """
    prior_there = on_grid(prior, image)
    spacing_mm = image.GetSpacing()[::-1]  # in the order of the arrays' axes
    found = _find(
        sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(prior_there) > 0, spacing_mm
    )
    mask = sitk.GetImageFromArray(found.astype(np.uint8))
    mask.CopyInformation(image)
    return on_grid(mask, prior)


def _find(image: np.ndarray, prior: np.ndarray, spacing_mm: tuple) -> np.ndarray:
    """Do the work of `find_brain` on arrays (z, y, x)."""
    margins = [int(np.ceil((ZONE_MM + SULCUS_MM) / mm)) + 1 for mm in spacing_mm]
    box = tuple(
        slice(max(side.start - margin, 0), side.stop + margin)
        for side, margin in zip(bounding_box(prior), margins, strict=True)
    )
    cut, prior = image[box], prior[box]
    core = _eroded(prior, CORE_MM, spacing_mm)
    if not (core & (cut > 0)).any():
        return np.zeros(image.shape, bool)
    tissue = np.median(cut[core & (cut > 0)])
    bright = (cut > TISSUE_SHARE * tissue) & _dilated(prior, ZONE_MM, spacing_mm)
    bright &= prior | (cut < FAT_SHARE * tissue)
    parts, count = ndimage.label(_eroded(bright, NECK_MM, spacing_mm))
    if not count:
        return np.zeros(image.shape, bool)
    largest = 1 + np.bincount(parts[core], minlength=count + 1)[1:].argmax()
    brain = _dilated(parts == largest, NECK_MM + RIM_MM, spacing_mm) & bright
    whole = np.zeros(image.shape, bool)
    whole[box] = ndimage.binary_fill_holes(_closed(brain, SULCUS_MM, spacing_mm))
    return whole


def _dilated(mask: np.ndarray, by_mm: float, spacing_mm: tuple) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask, spacing_mm) <= by_mm


def _eroded(mask: np.ndarray, by_mm: float, spacing_mm: tuple) -> np.ndarray:
    """Erode a mask. Outside the array, the mask counts as 0."""
    return ndimage.distance_transform_edt(np.pad(mask, 1), spacing_mm)[1:-1, 1:-1, 1:-1] > by_mm


def _closed(mask: np.ndarray, by_mm: float, spacing_mm: tuple) -> np.ndarray:
    """Dilate a mask, then erode it. Outside the array, the mask continues with its edge values."""
    margins = [int(np.ceil(by_mm / mm)) + 1 for mm in spacing_mm]
    padded = np.pad(mask, [(m, m) for m in margins], mode="edge")
    closed = ~_dilated(~_dilated(padded, by_mm, spacing_mm), by_mm, spacing_mm)
    return closed[tuple(slice(m, -m) for m in margins)]
