"""The lesions of a mask: which voxels, how large, where.

A lesion is a 6-connected component: voxels that share a face.
"""

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike
from scipy import ndimage

from msseg_jax.volumes.grids import bounding_box

CENTRE = ("x_mm", "y_mm", "z_mm")  # of a lesion, as `describe_lesions` calls it


def voxel_mm3(spacing_mm: ArrayLike) -> float:
    """The volume of a voxel of these sides, in the single precision of a NIfTI header."""
    return float(np.prod(np.asarray(spacing_mm, np.float32).astype(np.float64)))


def number_lesions(mask: np.ndarray, least_voxels: int = 1) -> tuple[np.ndarray, int]:
    """The lesions of a bool mask (D, H, W) that have at least `least_voxels`.

    Returns:
      (D, H, W) int32, 0 where there is no lesion, else its number from 1, the largest first; and
      how many there are. Of equal ones the one that a file's voxels come to first.
    """
    box = bounding_box(mask)
    labels, components = ndimage.label(mask[box].T)  # a file's first axis runs fastest
    voxels = np.bincount(labels.ravel(), minlength=components + 1)[1:]
    count = int((voxels >= least_voxels).sum())
    numbers = np.zeros(components + 1, dtype=np.int32)
    numbers[1 + np.argsort(-voxels, kind="stable")[:count]] = np.arange(1, count + 1)
    numbered = np.zeros(mask.shape, dtype=np.int32)
    numbered[box] = numbers[labels].T
    return numbered, count


def describe_lesions(
    labels: np.ndarray,
    affine: np.ndarray,
    spacing_mm: ArrayLike,
    probability: np.ndarray | None = None,
) -> list[dict]:
    """A row for each numbered lesion, in order.

    Args:
      labels: (D, H, W) int, from `number_lesions`.
      affine: (4, 4), voxel indices to scanner mm.
      spacing_mm: voxel sides.
      probability: (D, H, W), if there is a map.

    Returns:
      Of each lesion: `lesion`, its number; `volume_mm3`; `x_mm`, `y_mm`, `z_mm`, the mean of its
      voxels in scanner mm (to the patient's right, front and head); `mean_probability`, NaN
      without a map.
    """
    places = np.nonzero(labels)  # few voxels, so that nothing below goes through the volume
    numbers = labels[places]
    count = int(numbers.max(initial=0))
    voxels = np.bincount(numbers, minlength=count + 1)[1:]

    def means(values: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, values, minlength=count + 1)[1:] / voxels

    centres = apply_affine(affine, np.stack([means(indices) for indices in places], axis=-1))
    likelihoods = np.full(count, np.nan) if probability is None else means(probability[places])
    return [
        {
            "lesion": number,
            "volume_mm3": int(n) * voxel_mm3(spacing_mm),
            "x_mm": float(x),
            "y_mm": float(y),
            "z_mm": float(z),
            "mean_probability": float(mean),
        }
        for number, (n, (x, y, z), mean) in enumerate(
            zip(voxels, centres, likelihoods, strict=True), start=1
        )
    ]
