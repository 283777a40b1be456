"""Number the lesions of a mask, and measure their volumes and positions.

A lesion is a 6-connected component: its voxels are connected by shared faces.
"""

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike
from scipy import ndimage

from msseg_jax.volumes.grids import bounding_box

CENTRE = ("x_mm", "y_mm", "z_mm")  # keys of a lesion's centre in the rows of `describe_lesions`


def voxel_mm3(spacing_mm: ArrayLike) -> float:
    """Return the volume of a voxel with sides in single precision, as NIfTI headers store them."""
    return float(np.prod(np.asarray(spacing_mm, np.float32).astype(np.float64)))


def number_lesions(mask: np.ndarray, least_voxels: int = 1) -> tuple[np.ndarray, int]:
    """Find and number the lesions of a bool mask (D, H, W) with at least `least_voxels` voxels.

    Returns:
      (D, H, W) int32, the number of the lesion in each voxel, or 0. Lesion 1 is the largest.
      Lesions of the same size are numbered in the order of their first voxels in a file. The
      second value is the number of lesions.
    """
    box = bounding_box(mask)
    labels, components = ndimage.label(mask[box].T)  # .T: files store the first axis fastest
    voxels = np.bincount(labels.ravel(), minlength=components + 1)[1:]
    count = int((voxels >= least_voxels).sum())
    numbers = np.zeros(components + 1, dtype=np.int32)
    numbers[1 + np.argsort(-voxels, kind="stable")[:count]] = np.arange(1, count + 1)
    numbered = np.zeros(mask.shape, dtype=np.int32)
    numbered[box] = numbers[labels].T
    return numbered, count


def peaks(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the largest probability in each lesion, (lesions,).

    Args:
      labels: (D, H, W) int, from `number_lesions`.
      probability: (D, H, W).
    """
    inside = labels > 0
    largest = np.zeros(int(labels.max(initial=0)) + 1, probability.dtype)
    np.maximum.at(largest, labels[inside], probability[inside])
    return largest[1:]


def voxels_by_number(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Return the voxel indices of each lesion, {number: (voxels, 3)}.

    Args:
      labels: (D, H, W) int, from `number_lesions` or resampled; numbers may be missing.
    """
    places = np.argwhere(labels)
    if not len(places):
        return {}
    numbers = labels[tuple(places.T)]
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    return dict(zip(found.tolist(), np.split(places[order], starts[1:]), strict=True))


def touched_mm3(labels: np.ndarray, others: np.ndarray, spacing_mm: ArrayLike) -> np.ndarray:
    """Return the volume of the other lesions that each lesion touches, in mm3, (lesions,).

    Lesions touch if they share a voxel.

    Args:
      labels: (D, H, W) int, the lesions, from `number_lesions`.
      others: (D, H, W) int, the other lesions, in the same way.
      spacing_mm: voxel sides.
    """
    shared = (labels > 0) & (others > 0)
    pairs = np.unique(np.stack([labels[shared], others[shared]]), axis=1)
    voxels = np.bincount(others[others > 0], minlength=int(others.max(initial=0)) + 1)
    count = int(labels.max(initial=0))
    touched = np.bincount(pairs[0], voxels[pairs[1]], minlength=count + 1)[1:]
    return touched * voxel_mm3(spacing_mm)


def describe_lesions(
    labels: np.ndarray,
    affine: np.ndarray,
    spacing_mm: ArrayLike,
    probability: np.ndarray | None = None,
) -> list[dict]:
    """Return a row for each numbered lesion, in the order of the numbers.

    Args:
      labels: (D, H, W) int, from `number_lesions`.
      affine: (4, 4), voxel indices to scanner mm.
      spacing_mm: voxel sides.
      probability: (D, H, W), the probability map, if there is one.

    Returns:
      For each lesion: `lesion`, its number; `volume_mm3`; `x_mm`, `y_mm`, `z_mm`, the mean position
      of its voxels in scanner mm (to the patient's right, front and head); `mean_probability`, NaN
      without a map.
    """
    places = np.nonzero(labels)  # few voxels; the steps below need only these
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
