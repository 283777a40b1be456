"""Shapes and positions of real lesions, read from lesion masks.

Masks in MNI space provide both the shape and the position of each lesion. Masks in another space
provide shapes only; these are placed at the positions of lesions from MNI space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.masks import is_inside, mask_problem
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.volume import Volume

VOLUME_MM3 = (8.0, 8000.0)  # smaller components are noise, larger ones are merged lesions
SIMILAR = 2.0  # largest ratio between the volume of a drawn shape and the requested volume

# Deciles of the contrast of real lesions. The contrast is the upper quartile of a lesion's
# brightness, divided by the median of the tissue around it, minus 1. Measured on the 42 lesions of
# at least 8 mm3 in the masks of two patients (Lesjak et al., Neuroinformatics 2017; patients 07
# and 26).
CONTRASTS = (0.18, 0.24, 0.27, 0.3, 0.33, 0.37, 0.4, 0.44, 0.48, 0.52, 0.6)

# Bounding box of the brain in MNI152 space, mm. A mask with lesions outside it is in another space.
MNI_LOW_MM, MNI_HIGH_MM = np.array([-75.0, -110.0, -75.0]), np.array([75.0, 77.0, 87.0])
LEAST_INSIDE = 0.95  # minimum share of lesion voxels inside this box for a mask in MNI space


@dataclass(frozen=True)
class Shape:
    """Shape of one lesion of a mask."""

    mask: np.ndarray  # (D, H, W) float32, 0 or 1, cropped to the lesion
    to_mm: np.ndarray  # (3, 3), converts a voxel offset from the centre to mm
    middle: np.ndarray  # (3,), centre of the lesion as voxel indices of `mask`
    centre_mm: np.ndarray | None  # (3,), centre in MNI space; None if the mask is in another space
    volume_mm3: float

    @property
    def radius_mm(self) -> float:
        """Radius of the smallest ball around the centre that contains the lesion."""
        voxels = np.argwhere(self.mask > 0) - self.middle
        return float(np.linalg.norm(voxels @ self.to_mm.T, axis=1).max())


@dataclass(frozen=True)
class Bank:
    """All lesion shapes, and the contrasts that lesions can have."""

    shapes: tuple[Shape, ...]
    contrasts: tuple[float, ...] = CONTRASTS

    @cached_property
    def _volumes(self) -> np.ndarray:  # (N,) mm3
        return np.array([shape.volume_mm3 for shape in self.shapes])

    @cached_property
    def _places(self) -> np.ndarray:  # (M, 3) mm in MNI space, the centres that are known
        places = [s.centre_mm for s in self.shapes if s.centre_mm is not None]
        return np.array(places).reshape(-1, 3)

    def draw(self, rng: np.random.Generator, volume_mm3: float) -> tuple[Shape, np.ndarray]:
        """Draw a shape of about `volume_mm3` and its centre in MNI space, (3,) mm.

        If the centre of the shape is unknown, the centre of another lesion is used.
        """
        ratio = np.abs(np.log(self._volumes / volume_mm3))
        alike = np.flatnonzero(ratio <= max(np.log(SIMILAR), ratio.min()))
        shape = self.shapes[alike[rng.integers(len(alike))]]
        place = self._places[rng.integers(len(self._places))]
        return shape, place if shape.centre_mm is None else shape.centre_mm

    def draw_contrast(self, rng: np.random.Generator) -> float:
        """Draw the contrast of a lesion to the tissue around it, inside its soft border."""
        return float(rng.choice(self.contrasts) * rng.uniform(0.8, 1.3))


def read_bank(masks: Sequence[Path], shapes: Sequence[Path] = (), brain_size: float = 1.0) -> Bank:
    """Read the lesions of `masks`, which are in MNI space, and of `shapes`, in any space.

    Args:
      masks: files of lesion masks in MNI space.
      shapes: files of lesion masks in any space.
      brain_size: length of the brains of `masks`, relative to ICBM 152. Set it if `masks` were
        registered to MNI space rigidly, without scaling.

    Raises:
      InputError: a file is not a mask, a file of `masks` is not in MNI space, or `masks` contain no
        lesion.
    """
    found = []
    for path in masks:
        volume = _read_mask(path)
        volume = replace(volume, affine=np.diag([1 / brain_size] * 3 + [1.0]) @ volume.affine)
        _check_in_mni(volume)
        found += _components(volume, in_mni=True)
    if not found:
        raise InputError(
            f"--masks: the {len(masks)} files contain no lesion of {VOLUME_MM3[0]:g} to "
            f"{VOLUME_MM3[1]:g} mm3. Expected lesion masks in MNI space. Check the folder."
        )
    for path in shapes:
        found += _components(_read_mask(path), in_mni=False)
    return Bank(tuple(found))


def _read_mask(path: Path) -> Volume:
    volume = read_volume(path)
    if problem := mask_problem(path, volume.array):
        raise InputError(problem)
    return replace(volume, array=is_inside(volume.array).astype(np.float32))


def _check_in_mni(volume: Volume) -> None:
    lesion = np.argwhere(volume.array > 0)
    if not len(lesion):
        return
    places = nib.affines.apply_affine(volume.affine, lesion)
    inside = ((places >= MNI_LOW_MM) & (places <= MNI_HIGH_MM)).all(axis=1).mean()
    if inside < LEAST_INSIDE:
        raise InputError(
            f"{volume.path}: {100 * (1 - inside):.0f} % of the lesion voxels lie outside the brain "
            "in MNI space, according to the header. Expected a mask in MNI space. Register it "
            "to MNI space, or pass its folder with --shapes: that flag accepts masks in any space "
            "and uses only the shapes of their lesions."
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
