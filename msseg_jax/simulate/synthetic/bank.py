"""Lesions of real masks: their shapes, and where in the brain they lie.

Masks in MNI space say both. Masks in another space give shapes alone, which are put where lesions
of the first kind lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.masks import mask_problem
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.volume import Volume

VOLUME_MM3 = (8.0, 8000.0)  # smaller components are noise of the masks, larger ones have no shape
SIMILAR = 2.0  # of a wanted volume, at most, is what is taken for it

# Upper quartile of a lesion's brightness over the median of the tissue around it, less 1: deciles
# of the 42 lesions of 8 mm3 and more that the masks of two patients have (Lesjak et al.,
# Neuroinformatics 2017; patients 07 and 26).
CONTRASTS = (0.18, 0.24, 0.27, 0.3, 0.33, 0.37, 0.4, 0.44, 0.48, 0.52, 0.6)

# The box of the brain in MNI152 space, mm: what lies outside of it is in another space.
MNI_LOW_MM, MNI_HIGH_MM = np.array([-75.0, -110.0, -75.0]), np.array([75.0, 77.0, 87.0])
LEAST_INSIDE = 0.95  # of a mask's lesion voxels, for it to be in MNI space


@dataclass(frozen=True)
class Shape:
    """One lesion of a mask."""

    mask: np.ndarray  # (D, H, W) float32, 0 or 1, cut to it
    to_mm: np.ndarray  # (3, 3), steps of voxels to mm from its centre
    middle: np.ndarray  # (3,), its centre as voxel indices of `mask`
    centre_mm: np.ndarray | None  # (3,), its centre in MNI space; None: of another space
    volume_mm3: float

    @property
    def radius_mm(self) -> float:
        """Of the smallest ball around its centre that holds the whole of `mask`'s lesion."""
        voxels = np.argwhere(self.mask > 0) - self.middle
        return float(np.linalg.norm(voxels @ self.to_mm.T, axis=1).max())


@dataclass(frozen=True)
class Bank:
    """All of them, and how bright lesions are."""

    shapes: tuple[Shape, ...]
    contrasts: tuple[float, ...] = CONTRASTS

    @cached_property
    def _volumes(self) -> np.ndarray:  # (N,) mm3
        return np.array([shape.volume_mm3 for shape in self.shapes])

    @cached_property
    def _places(self) -> np.ndarray:  # (M, 3) mm in MNI space, where they are known
        places = [s.centre_mm for s in self.shapes if s.centre_mm is not None]
        return np.array(places).reshape(-1, 3)

    def draw(self, rng: np.random.Generator, volume_mm3: float) -> tuple[Shape, np.ndarray]:
        """A shape of about that volume, and a place in MNI space: (3,) mm.

        The place is its own, or where that is unknown, another lesion's.
        """
        ratio = np.abs(np.log(self._volumes / volume_mm3))
        alike = np.flatnonzero(ratio <= max(np.log(SIMILAR), ratio.min()))
        shape = self.shapes[alike[rng.integers(len(alike))]]
        place = self._places[rng.integers(len(self._places))]
        return shape, place if shape.centre_mm is None else shape.centre_mm

    def draw_contrast(self, rng: np.random.Generator) -> float:
        """How much brighter than the tissue around it a lesion is where it is whole."""
        return float(rng.choice(self.contrasts) * rng.uniform(0.8, 1.3))


def read_bank(masks: Sequence[Path], shapes: Sequence[Path] = (), brain_size: float = 1.0) -> Bank:
    """Lesions of masks in MNI space (`masks`) and of masks in any other (`shapes`).

    Args:
      brain_size: length of the brains of `masks` over that of ICBM 152, where they were moved and
        turned into MNI space, but not stretched.

    Raises:
      InputError: a file that is no mask, or of `masks` one that is not in MNI space; no lesions.
    """
    found = []
    for path in masks:
        volume = _read_mask(path)
        volume = replace(volume, affine=np.diag([1 / brain_size] * 3 + [1.0]) @ volume.affine)
        _check_in_mni(volume)
        found += _components(volume, in_mni=True)
    if not found:
        raise InputError(
            f"--masks: no lesion of {VOLUME_MM3[0]:g} to {VOLUME_MM3[1]:g} mm3 in the {len(masks)} "
            "files; expected masks of lesions in MNI space: check the folder"
        )
    for path in shapes:
        found += _components(_read_mask(path), in_mni=False)
    return Bank(tuple(found))


def _read_mask(path: Path) -> Volume:
    volume = read_volume(path)
    if problem := mask_problem(path, volume.array):
        raise InputError(problem)
    return volume


def _check_in_mni(volume: Volume) -> None:
    lesion = np.argwhere(volume.array > 0)
    if not len(lesion):
        return
    places = nib.affines.apply_affine(volume.affine, lesion)
    inside = ((places >= MNI_LOW_MM) & (places <= MNI_HIGH_MM)).all(axis=1).mean()
    if inside < LEAST_INSIDE:
        raise InputError(
            f"{volume.path}: {100 * (1 - inside):.0f} % of its lesion voxels lie outside the brain "
            "of MNI space; expected a mask in MNI space, as its header has it: register it, or "
            "give its folder by --shapes, which takes masks in any space for their shapes alone"
        )


def _components(volume: Volume, in_mni: bool) -> list[Shape]:
    labels, _ = ndimage.label(volume.array > 0, np.ones((3, 3, 3)))
    to_mm = volume.affine[:3, :3]
    voxel_mm3 = abs(np.linalg.det(to_mm))
    shapes = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        part = labels[box] == number
        volume_mm3 = float(part.sum() * voxel_mm3)
        if not VOLUME_MM3[0] <= volume_mm3 <= VOLUME_MM3[1]:
            continue
        middle = np.argwhere(part).mean(axis=0)
        first = np.array([side.start for side in box])
        centre = nib.affines.apply_affine(volume.affine, middle + first) if in_mni else None
        shapes.append(Shape(part.astype(np.float32), to_mm, middle, centre, volume_mm3))
    return shapes
