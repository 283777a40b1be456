"""Say in which region of the brain a lesion lies, by the atlas and by the scan itself.

The regions are those of the McDonald criteria (Thompson et al., Lancet Neurology 2018). The lateral
ventricles are found in the scan, because they differ much between patients. The cortex and the
tentorium come from the atlas after its affine registration, so they are off by some mm.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine, from_matvec
from nilearn import datasets
from scipy import ndimage
from scipy.spatial import KDTree

from msseg_jax.prepare.atlas import ADULT
from msseg_jax.prepare.images import RAS_TO_LPS
from msseg_jax.prepare.registration import matrix_of
from msseg_jax.volumes.anatomy import (
    find_ventricles,
    places_in_mni,
    squared_distance_from_brain_stem,
)
from msseg_jax.volumes.pair import Pair

INFRATENTORIAL = "infratentorial"
PERIVENTRICULAR = "periventricular"
CORTICAL = "cortical or juxtacortical"
DEEP = "deep white matter"
NEAR_CISTERNS = "near the cisterns of the brain stem"  # where false lesions are common
NEAR_MM = 3.0  # from the ventricles or the cortex
LEAST_GREY = 0.5  # probability in the atlas
# The basal ganglia and the thalamus lie in this box; its grey matter is no cortex. MNI, mm.
DEEP_GREY_MM = np.array([[-40.0, -38.0, -14.0], [40.0, 26.0, 22.0]])


@dataclass(frozen=True)
class Region:
    """The region of a lesion, and a caution about it."""

    name: str
    caution: str = ""  # why lesions at this place are often false


class Regions:
    """The regions of a prepared pair."""

    def __init__(self, pair: Pair, to_atlas: sitk.Transform):
        """Find the ventricles in the second visit.

        Args:
          pair: the prepared pair.
          to_atlas: maps points of the pair to points of the atlas, both LPS.
        """
        matrix, shift = matrix_of(to_atlas)
        self._to_mni = from_matvec(RAS_TO_LPS @ matrix @ RAS_TO_LPS, RAS_TO_LPS @ shift) / ADULT
        self._to_mni[3, 3] = 1
        self._affine = pair.time01.affine
        image = pair.time02.array / np.median(pair.time02.array[pair.brain])
        places_mm = places_in_mni(self._to_mni @ self._affine, image.shape)
        spacing_mm = np.asarray(pair.time01.spacing_mm)
        self.ventricles = find_ventricles(image, pair.brain, places_mm, spacing_mm)
        # A tree needs much less memory than the distances of all voxels.
        self._spacing_mm = spacing_mm
        self._ventricle_tree = KDTree(np.argwhere(self.ventricles) * spacing_mm)

    def of(self, voxels: np.ndarray) -> Region:
        """Return the region of a lesion.

        Args:
          voxels: (N, 3), the indices of its voxels, at least one.
        """
        points_mm = apply_affine(self._to_mni @ self._affine, voxels)
        near = (squared_distance_from_brain_stem(points_mm.T) < 1).mean() > 0.5
        caution = NEAR_CISTERNS if near else ""
        if is_infratentorial(points_mm).mean() > 0.5:
            return Region(INFRATENTORIAL, caution)
        from_ventricles_mm, _ = self._ventricle_tree.query(voxels * self._spacing_mm)
        if from_ventricles_mm.min() <= NEAR_MM:
            return Region(PERIVENTRICULAR, caution)
        if _from_cortex_mm(points_mm).min() <= NEAR_MM:
            return Region(CORTICAL, caution)
        return Region(DEEP, caution)


def is_infratentorial(points_mm: np.ndarray) -> np.ndarray:
    """Return which points lie below the tentorium: (N,) bool.

    The tentorium is drawn as a ridged roof over the cerebellum. The midbrain, in front of it, ends
    at its notch. The numbers were chosen on the atlas.

    Args:
      points_mm: (N, 3), MNI mm.
    """
    x, y, z = np.asarray(points_mm).T
    x = np.abs(x)
    roof = -2 - 0.5 * x - 0.35 * np.maximum(0, -60 - y)
    cerebellum = (y < -35) & (z < roof)
    brain_stem = (x < 20) & (y >= -45) & (y < -8) & (z < -10)
    return cerebellum | brain_stem


def _from_cortex_mm(points_mm: np.ndarray) -> np.ndarray:
    """Return the distance of points in MNI space, (N, 3), from the cortex of the atlas, mm."""
    distance_mm, affine = _cortex_distance()
    indices = apply_affine(np.linalg.inv(affine), points_mm).T
    return ndimage.map_coordinates(distance_mm, indices, order=1, mode="nearest")


@cache
def _cortex_distance() -> tuple[np.ndarray, np.ndarray]:
    """Return the distance from the cortex in the atlas, mm, and its affine."""
    grey = datasets.load_mni152_gm_template(resolution=2)
    cortex = grey.get_fdata(dtype=np.float32) > LEAST_GREY
    places = np.stack(places_in_mni(grey.affine, cortex.shape), axis=-1)
    low, high = DEEP_GREY_MM
    cortex &= ~((places > low) & (places < high)).all(axis=-1)
    return ndimage.distance_transform_edt(~cortex, 2.0), grey.affine
