"""The average brain that nilearn carries in itself, and where it lies in a scan of a head.

ICBM 152 2009a nonlinear symmetric, skull-stripped T1 with its grey and white matter at 1 mm (Fonov
et al., NeuroImage 2011). It is an atlas of healthy T1 brains; laid on a FLAIR by an affine
transform it says about where the brain is, and `brain_mask` finds its edge from there.

It is a tenth longer along each axis than the brains it was made from, as all of that family are,
and is shrunk by that here: as it is, its edge lies on the scalp of a scan, where an affine descent
stays if the scalp is bright.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import SimpleITK as sitk
from nilearn import datasets

from msseg_jax.prepare.images import by_usual, capped, image_of, without_fat
from msseg_jax.prepare.registration import (
    PROBE_MM,
    centre_of,
    correlation,
    isotropic,
    matrix_of,
    on_grid,
    refine,
    search,
)

GREY, WHITE = 1.0, 0.85  # how bright FLAIR shows them; fluid, bone and what is outside are dark
ADULT = 0.9  # the length of a brain over that of ICBM 152
SHELL_MM = 8  # around the brain: dark bone, without which the brain's edge is not seen
CORE_MM = 14  # a rigid pose is off by as much
SURE = 0.9  # probability above which a voxel is taken for one tissue
NECKS_MM = (0.0, 25.0)  # how far above the middle of what is scanned the brain's middle may lie
SURE_POSE = 0.7  # correlation; on the scalp 0.46 to 0.57 was seen, on the brain 0.66 to 0.86
SEEN_MM = 2.0  # voxel side of what is compared at all, so that the coarser ones are quickly made
AFFINE_MM = (4.0, 3.0)  # voxel sides of the affine descent


@dataclass(frozen=True)
class Atlas:
    """On its own grid, shrunk to an adult's size: RAS in the file, LPS here."""

    flair: sitk.Image  # float32, what FLAIR would show of it, 0 to 1, on voxels of SEEN_MM
    brain: sitk.Image  # uint8
    shell: sitk.Image  # uint8, the brain and SHELL_MM around it
    core: sitk.Image  # uint8, the brain less CORE_MM: in it, however badly the atlas lies
    grey: sitk.Image  # uint8, what is surely grey matter
    white: sitk.Image  # uint8
    centre: np.ndarray  # (3,) mm, of the brain


@cache
def load_atlas() -> Atlas:
    """Return the atlas, read from the installed package."""
    grey, white, brain = (
        image_of(image.get_fdata(dtype=np.float32), np.diag([ADULT] * 3 + [1.0]) @ image.affine)
        for image in (
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
            datasets.load_mni152_brain_mask(resolution=1),
        )
    )
    brain = brain > 0.5
    return Atlas(
        isotropic(grey * GREY + white * WHITE, SEEN_MM),
        brain,
        sitk.BinaryDilate(brain, _voxels(SHELL_MM, brain)),
        sitk.BinaryErode(brain, _voxels(CORE_MM, brain)),
        grey > SURE,
        white > SURE,
        centre_of(brain),
    )


def _voxels(length_mm: float, image: sitk.Image) -> list[int]:
    return [round(length_mm / mm) for mm in image.GetSpacing()]


def seen(image: sitk.Image) -> sitk.Image:
    """Of a scan, what whole heads and the atlas are compared with."""
    return isotropic(by_usual(image), SEEN_MM)


def find_pose(atlas: Atlas, head: sitk.Image) -> sitk.Transform:
    """Where the atlas lies in a head, turned by up to 30 degrees, anywhere: rigid, to a centimetre.

    Args:
      head: what was `seen` of it.

    Raises:
      RuntimeError: nowhere.
    """
    pose = _laid(atlas, capped(head), [])
    tissue = _tissue(atlas, head, pose)
    if tissue is not None and not _similarity(atlas, tissue, pose) >= SURE_POSE:
        # It may lie on the scalp. Deep inside it there is brain all the same, which says how bright
        # the brain is, and so what is fat.
        pose = _laid(atlas, tissue, [pose])
    return pose


def _laid(atlas: Atlas, image: sitk.Image, more: list[sitk.Transform]) -> sitk.Transform:
    middle = centre_of(sitk.OtsuThreshold(isotropic(image, PROBE_MM), 0, 1))
    shifts = [middle - atlas.centre + np.array([0.0, 0.0, neck]) for neck in NECKS_MM]
    return search(atlas.flair, image, atlas.shell, atlas.centre, shifts, more)


def _tissue(atlas: Atlas, head: sitk.Image, pose: sitk.Transform) -> sitk.Image | None:
    """A head without its fat, by how bright it is where the atlas's core lies; None: it is dark."""
    deep = sitk.GetArrayFromImage(on_grid(atlas.core, head, pose.GetInverse())) > 0
    inside = sitk.GetArrayFromImage(head)[deep]
    inside = inside[inside > 0]
    return without_fat(head, float(np.median(inside))) if inside.size else None


def _similarity(atlas: Atlas, image: sitk.Image, transform: sitk.Transform) -> float:
    """Correlation of the atlas with an image, -inf where they do not overlap."""
    fixed = isotropic(atlas.flair, PROBE_MM)
    shell = on_grid(atlas.shell, fixed)
    found = correlation(fixed, isotropic(image, PROBE_MM), shell, transform)
    return -math.inf if math.isnan(found) else found


def fit_atlas(
    atlas: Atlas, head: sitk.Image, poses: list[sitk.Transform]
) -> tuple[sitk.AffineTransform, float]:
    """The affine transform from the atlas to a head, and the correlation reached.

    Args:
      head: what was `seen` of it.
      poses: rigid ones to start from; the best of them is taken.
    """

    def similarity(pose: sitk.Transform) -> float:
        tissue = _tissue(atlas, head, pose)
        return -math.inf if tissue is None else _similarity(atlas, tissue, pose)

    best = max(poses, key=similarity)
    transform = sitk.AffineTransform(3)
    transform.SetCenter(atlas.centre.tolist())
    matrix, _ = matrix_of(best)
    transform.SetMatrix(matrix.ravel().tolist())
    there = np.array(best.TransformPoint(atlas.centre.tolist()))
    transform.SetTranslation((there - atlas.centre).tolist())
    tissue = _tissue(atlas, head, best)
    if tissue is None:
        return transform, -math.inf
    refine(atlas.flair, tissue, atlas.shell, transform, AFFINE_MM)
    return transform, _similarity(atlas, tissue, transform)


def brain_by_atlas(atlas: Atlas, transform: sitk.AffineTransform, grid: sitk.Image) -> sitk.Image:
    """The atlas's brain on a scan's grid: uint8."""
    return on_grid(atlas.brain, grid, transform.GetInverse())
