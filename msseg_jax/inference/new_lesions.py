"""Turn a probability map into new lesions, on the same grid."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.system.words import count_of
from msseg_jax.volumes.lesions import describe_lesions, number_lesions, voxel_mm3
from msseg_jax.volumes.volume import Volume


@dataclass(frozen=True)
class NewLesions:
    """The new lesions of a pair, with the maps they were found in, all on one grid."""

    like: Volume  # a volume on this grid; output files take affine, codes and units from it
    probability: np.ndarray  # (D, H, W) float32, probability of new lesion
    disagreement: np.ndarray  # (D, H, W) float32, standard deviation over the networks
    mask: np.ndarray  # (D, H, W) uint8, 1 in new lesions

    @cached_property
    def labels(self) -> np.ndarray:
        """Lesions of the mask, (D, H, W) int32, numbered from 1 in order of decreasing size."""
        return number_lesions(self.mask != 0)[0]

    @cached_property
    def rows(self) -> list[dict]:
        """Measurements of each lesion, from `describe_lesions`."""
        return describe_lesions(
            self.labels, self.like.affine, self.like.spacing_mm, self.probability
        )

    @property
    def count(self) -> int:
        """The number of lesions."""
        return int(self.labels.max(initial=0))

    @property
    def volume_mm3(self) -> float:
        """The volume of all lesions."""
        return float(self.mask.sum() * voxel_mm3(self.like.spacing_mm))

    def __str__(self) -> str:
        return f"{count_of(self.count, 'new lesion')}, {self.volume_mm3:.0f} mm3"


def find_new_lesions(
    probability: np.ndarray, disagreement: np.ndarray, options: Options, like: Volume
) -> NewLesions:
    """Return the new lesions in a probability map.

    Args:
      probability: (D, H, W) float32, probability of new lesion.
      disagreement: (D, H, W) float32, standard deviation over the networks.
      options: threshold and smallest lesion.
      like: a volume on the same grid as the maps.
    """
    mask = lesion_mask(probability, options, voxel_mm3(like.spacing_mm))
    return NewLesions(like, probability, disagreement, mask)


def lesion_mask(probability: np.ndarray, options: Options, volume_mm3: float) -> np.ndarray:
    """Return the mask of voxels above the threshold, without lesions that are too small.

    Args:
      probability: (D, H, W).
      options: threshold and smallest lesion.
      volume_mm3: volume of a voxel.

    Returns:
      (D, H, W) uint8.
    """
    mask = probability > options.threshold
    if options.min_lesion_mm3 > 0:
        least_voxels = math.ceil(options.min_lesion_mm3 / volume_mm3)
        mask = number_lesions(mask, least_voxels)[0] > 0
    return mask.astype(np.uint8)
