"""From the probability map of one grid to its new lesions."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.volumes.lesions import describe_lesions, number_lesions, voxel_mm3
from msseg_jax.volumes.volume import Volume


@dataclass(frozen=True)
class NewLesions:
    """What was found, on one grid."""

    like: Volume  # of that grid; outputs take codes and units from it
    probability: np.ndarray  # (D, H, W) float32, of new lesion
    disagreement: np.ndarray  # (D, H, W) float32, its standard deviation over the networks
    mask: np.ndarray  # (D, H, W) uint8

    @cached_property
    def labels(self) -> np.ndarray:
        """The lesions of the mask, numbered from 1, the largest first: (D, H, W) int32."""
        return number_lesions(self.mask != 0)[0]

    @cached_property
    def rows(self) -> list[dict]:
        """What `describe_lesions` says of each lesion."""
        return describe_lesions(
            self.labels, self.like.affine, self.like.spacing_mm, self.probability
        )

    def __str__(self) -> str:
        count = int(self.labels.max(initial=0))
        total_mm3 = self.mask.sum() * voxel_mm3(self.like.spacing_mm)
        return f"{count} new lesion{'' if count == 1 else 's'}, {total_mm3:.0f} mm3"


def find_new_lesions(
    probability: np.ndarray, disagreement: np.ndarray, options: Options, like: Volume
) -> NewLesions:
    """Return the new lesions of two maps (D, H, W) that lie on the grid of `like`."""
    mask = lesion_mask(probability, options, voxel_mm3(like.spacing_mm))
    return NewLesions(like, probability, disagreement, mask)


def lesion_mask(probability: np.ndarray, options: Options, volume_mm3: float) -> np.ndarray:
    """Return the voxels above the threshold, without lesions below the least volume.

    Args:
      probability: (D, H, W).
      volume_mm3: of a voxel.

    Returns:
      (D, H, W) uint8.
    """
    mask = probability > options.threshold
    if options.min_lesion_mm3 > 0:
        least_voxels = math.ceil(options.min_lesion_mm3 / volume_mm3)
        mask = number_lesions(mask, least_voxels)[0] > 0
    return mask.astype(np.uint8)
