"""Align an average brain, which is part of nilearn, with the scan of a head.

The atlas is ICBM 152 2009a nonlinear symmetric: a skull-stripped T1 with maps of its grey and white
matter at 1 mm (Fonov et al., NeuroImage 2011). It shows healthy brains in T1 contrast. After an
affine registration to a FLAIR, it shows roughly where the brain is. `brain_mask` then finds the
exact edge.

Like all brains of the ICBM 152 family, the atlas is about 10 % longer along each axis than the
brains that it was made from. It is therefore shrunk here. At its original size its edge would lie
on the scalp of a scan. If the scalp is bright, an affine optimisation would stay there.
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
from msseg_jax.prepare.scalp import without_scalp

GREY, WHITE = 1.0, 0.85  # brightness in FLAIR; fluid, bone and the background are dark
ADULT = 0.9  # length of an adult brain, relative to ICBM 152
SHELL_MM = 8  # layer around the brain that is compared, too; its dark bone makes the edge visible
CORE_MM = 14  # depth of the core below the brain's surface; a rigid pose is off by at most this
SURE = 0.9  # probability above which a voxel counts as one tissue
NECKS_MM = (0.0, 25.0)  # height of the brain's centre above the scan's centre, at each start
SURE_POSE = 0.7  # correlation; measured 0.46 to 0.57 on the scalp, 0.66 to 0.86 on the brain
SEEN_MM = 2.0  # voxel side of the finest grid that is compared; coarser grids are made from it
AFFINE_MM = (4.0, 3.0)  # voxel sides of the affine optimisation, in this order


@dataclass(frozen=True)
class Atlas:
    """The atlas on its own grid, shrunk to the size of an adult brain.

    Its files hold RAS coordinates; the images here use LPS.
    """

    flair: sitk.Image  # float32, simulated FLAIR, 0 to 1, on voxels of SEEN_MM
    brain: sitk.Image  # uint8
    shell: sitk.Image  # uint8, the brain and a layer of SHELL_MM around it
    core: sitk.Image  # uint8, the brain eroded by CORE_MM; inside the brain even at a poor pose
    grey: sitk.Image  # uint8, voxels that are grey matter with a probability above SURE
    white: sitk.Image  # uint8, the same for white matter
    centre: np.ndarray  # (3,) mm, centre of the brain


@cache
def load_atlas() -> Atlas:
    """Read the atlas from the installed nilearn package."""
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
    """Convert a scan to the form in which it is compared with the atlas and with other heads.

    Its brightness is normalised (`by_usual`), and its voxels have a side of SEEN_MM.
    """
    return isotropic(by_usual(image), SEEN_MM)


def find_pose(atlas: Atlas, head: sitk.Image) -> sitk.Transform:
    """Find the rigid pose of the atlas in a head, to within about a centimetre.

    The head may lie anywhere and may be turned by up to 30 degrees.

    Args:
      head: the scan, as `seen` returns it.

    Raises:
      RuntimeError: The atlas and the head overlap at none of the poses.
    """
    pose = _laid(atlas, capped(head), [])
    tissue = _tissue(atlas, head, pose)
    if tissue is not None and not _similarity(atlas, tissue, pose) >= SURE_POSE:
        # The atlas may lie on the scalp. Its core is inside the brain even then. The core's
        # brightness tells brain from fat, so the search is repeated without the fat. In thick
        # slices, much of the fat is as bright as the brain, so the scalp is removed, too.
        pose = _laid(atlas, without_scalp(tissue, head), [pose])
    return pose


def _laid(atlas: Atlas, image: sitk.Image, more: list[sitk.Transform]) -> sitk.Transform:
    middle = centre_of(sitk.OtsuThreshold(isotropic(image, PROBE_MM), 0, 1))
    shifts = [middle - atlas.centre + np.array([0.0, 0.0, neck]) for neck in NECKS_MM]
    return search(atlas.flair, image, atlas.shell, atlas.centre, shifts, more)


def _tissue(atlas: Atlas, head: sitk.Image, pose: sitk.Transform) -> sitk.Image | None:
    """Remove the fat from a head, using the brightness at the atlas's core.

    Returns:
      The head without fat. None if no voxel of the core is above 0.
    """
    deep = sitk.GetArrayFromImage(on_grid(atlas.core, head, pose.GetInverse())) > 0
    inside = sitk.GetArrayFromImage(head)[deep]
    inside = inside[inside > 0]
    return without_fat(head, float(np.median(inside))) if inside.size else None


def _similarity(atlas: Atlas, image: sitk.Image, transform: sitk.Transform) -> float:
    """Return the correlation of the atlas with an image, or -inf if they do not overlap."""
    fixed = isotropic(atlas.flair, PROBE_MM)
    shell = on_grid(atlas.shell, fixed)
    found = correlation(fixed, isotropic(image, PROBE_MM), shell, transform)
    return -math.inf if math.isnan(found) else found


def fit_atlas(
    atlas: Atlas, head: sitk.Image, poses: list[sitk.Transform]
) -> tuple[sitk.AffineTransform, float]:
    """Find the affine transform from the atlas to a head.

    Args:
      head: the scan, as `seen` returns it.
      poses: rigid transforms; the one with the highest correlation is the start.

    Returns:
      The transform, and the correlation that it reaches.
    """
    best, image = max(
        ((pose, *_comparable(atlas, head, pose)) for pose in poses), key=lambda found: found[2]
    )[:2]
    transform = sitk.AffineTransform(3)
    transform.SetCenter(atlas.centre.tolist())
    matrix, _ = matrix_of(best)
    transform.SetMatrix(matrix.ravel().tolist())
    there = np.array(best.TransformPoint(atlas.centre.tolist()))
    transform.SetTranslation((there - atlas.centre).tolist())
    if image is None:
        return transform, -math.inf
    refine(atlas.flair, image, atlas.shell, transform, AFFINE_MM)
    return transform, _similarity(atlas, image, transform)


def _comparable(
    atlas: Atlas, head: sitk.Image, pose: sitk.Transform
) -> tuple[sitk.Image | None, float]:
    """Return the form of a head to compare with the atlas at a pose, and their correlation.

    It has no fat. If the pose is not sure, the scalp is removed as well, if this improves the
    correlation. A skull-stripped scan has no scalp, and would lose its cortex.
    """
    tissue = _tissue(atlas, head, pose)
    if tissue is None:
        return None, -math.inf
    found = _similarity(atlas, tissue, pose)
    if found < SURE_POSE:
        inner = without_scalp(tissue, head)
        if (better := _similarity(atlas, inner, pose)) > found:
            return inner, better
    return tissue, found


def brain_by_atlas(atlas: Atlas, transform: sitk.AffineTransform, grid: sitk.Image) -> sitk.Image:
    """Resample the atlas's brain mask to the grid of a scan: uint8."""
    return on_grid(atlas.brain, grid, transform.GetInverse())
