"""Normal structures of a head that can look like a change between two visits."""

from functools import cached_property

import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.erase import soft_mask
from msseg_jax.simulate.synthetic.fields import smooth_field
from msseg_jax.simulate.synthetic.source import Source
from msseg_jax.volumes.anatomy import (
    FLUID,
    find_ventricles,
    places_in_mni,
    squared_distance_from_brain_stem,
)

RIM_MM = 1.6  # distance from the ventricle at which a bright rim has fallen to 1/e
RIM_LENGTH_MM = 14.0  # length scale along the ventricle, over which rims come and go
FLUID_SOFT_MM = 2.5  # Gaussian standard deviation; atrophy moves tissue this far from fluid
NEAR_MM = 4.0  # Gaussian standard deviation of the tissue around a bright region


class Anatomy:
    """The fluid spaces and other normal structures in the head of a source."""

    def __init__(self, source: Source):
        self._source = source
        self._image = source.images[0]

    @cached_property
    def ventricles(self) -> np.ndarray:
        """The lateral ventricles, (D, H, W) bool."""
        source = self._source
        return find_ventricles(self._image, source.brain, self._places_mm, source.spacing_mm)

    @cached_property
    def cisterns(self) -> np.ndarray:
        """Weights from 0 to 1, (D, H, W) float32, that are 1 in the middle of the brain stem."""
        return np.exp(-0.5 * squared_distance_from_brain_stem(self._places_mm)).astype(np.float32)

    @cached_property
    def towards_fluid(self) -> np.ndarray:
        """Directions from tissue to the fluid next to it, (3, D, H, W) float32, at most 1 long.

        The vectors are in mm along the axes of the image. They are 0 far from fluid.
        """
        source = self._source
        fluid = (source.brain & (self._image < FLUID)).astype(np.float32)
        soft = ndimage.gaussian_filter(fluid, FLUID_SOFT_MM / source.spacing_mm)
        slopes = np.stack(np.gradient(soft, *source.spacing_mm.tolist())).astype(np.float32)
        length = np.linalg.norm(slopes, axis=0)
        steep = float(np.percentile(length[source.brain], 90))  # typical next to a ventricle
        return slopes / max(steep, 1e-6) / np.maximum(length / max(steep, 1e-6), 1)

    def rims(self, seed: int) -> np.ndarray:
        """Return weights of bright lines and caps along the ventricles, (D, H, W) float32, 0 to 1.

        Args:
          seed: seed of the places along the ventricles.
        """
        source = self._source
        if not self.ventricles.any():
            return np.zeros(source.brain.shape, np.float32)
        distance_mm = self._from_ventricles_mm
        rng = np.random.default_rng(seed)
        thickness = np.exp(
            0.5 * smooth_field(rng, source.brain.shape, source.spacing_mm, RIM_LENGTH_MM)
        )
        there = smooth_field(rng, source.brain.shape, source.spacing_mm, RIM_LENGTH_MM)
        band = np.exp(-((distance_mm / (RIM_MM * thickness)) ** 2)) * ~self.ventricles
        return (band * np.clip(0.5 + there, 0, 1)).astype(np.float32)

    @cached_property
    def _from_ventricles_mm(self) -> np.ndarray:
        """Distance of each voxel from the ventricles, (D, H, W) float64, mm."""
        return ndimage.distance_transform_edt(~self.ventricles, self._source.spacing_mm)

    @cached_property
    def _places_mm(self) -> list[np.ndarray]:
        """MNI coordinates x, y and z of each voxel, mm, (D, H, W) float32 each."""
        return places_in_mni(self._source.to_mni @ self._source.affine, self._source.brain.shape)


def scale_contrast(
    image: np.ndarray, mask: np.ndarray, factor: float, spacing_mm: np.ndarray
) -> np.ndarray:
    """Multiply the contrast of a region to the tissue around it, as another protocol does.

    Args:
      image: (D, H, W) float32, 1 is the median of the brain.
      mask: (D, H, W) bool, the region. Its size does not change.
      factor: factor on the difference to the tissue around the region.
      spacing_mm: (3,), voxel spacing.
    """
    if factor == 1 or not mask.any():
        return image
    blend = soft_mask(mask, spacing_mm)
    tissue = ((blend == 0) & (image > FLUID)).astype(np.float32)
    sigma = NEAR_MM / spacing_mm
    weight = ndimage.gaussian_filter(tissue, sigma)
    near = ndimage.gaussian_filter(tissue * image, sigma)
    known = weight > 0.02
    around = np.divide(near, weight, out=np.ones_like(image), where=known)
    return image + blend * np.float32(factor - 1) * np.maximum(image - around, 0)
