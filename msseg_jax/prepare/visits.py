"""Register the visits, and find the brain in each.

The two tasks use each other's results. First the whole heads are registered, which works even if
they are far apart. Then the brain is found in each visit with an atlas. Finally the visits are
registered inside the brains only, so that movements of jaw, neck and scalp have no influence.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import SimpleITK as sitk

from msseg_jax.data.quality import BRAIN_ML, LEAST_CORRELATION
from msseg_jax.prepare.atlas import (
    Atlas,
    brain_by_atlas,
    find_pose,
    fit_atlas,
    load_atlas,
    seen,
)
from msseg_jax.prepare.bias import correct_bias
from msseg_jax.prepare.brain_mask import find_brain, for_edges
from msseg_jax.prepare.images import capped, inside_of, is_set, volume_ml, without_peaks
from msseg_jax.prepare.registration import (
    PROBE_MM,
    centre_of,
    compose,
    correlation,
    coverage,
    isotropic,
    matrix_of,
    nearest_rigid,
    on_grid,
    refine_on,
    search,
)
from msseg_jax.prepare.scan import Scan
from msseg_jax.prepare.threads import at_once
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.alignment import measure_alignment

FINE_MM = (2.0, 1.0)  # voxel sides of the final registration of the visits, in this order
COMPARE_MM = 2.0  # voxel side for the correlations that decide if a result is accepted

# These bounds were chosen by this project. docs/explanation/preparation.md gives the values of real
# pairs.
LEAST_ATLAS = 0.6  # correlation of a scan with the atlas
SIZES = (0.8, 1.2)  # size of a brain relative to the atlas, along any direction
SURE_ATLAS = 0.8  # correlation with the atlas above which the result is accepted at once
LEAST_VISITS = 0.5  # correlation of the visits inside the brain
# After a coarse step, the fine ones change a correlation by at most this. If it is further below
# its bound (LEAST_VISITS, or LEAST_CORRELATION for edges), they are left out.
MOST_FINE_GAIN = 0.03
LEAST_GREY_TO_WHITE = 0.95  # ratio of brightness; above 1 in FLAIR, below 1 in T1
MOST_MIRROR_GAIN = 0.02  # gain of correlation if one visit is mirrored

GIVE_MASKS = (
    "give brain masks (--brain_mask01, --brain_mask02) or a program that makes them "
    "(--brain_mask_command)"
)


@dataclass(frozen=True)
class Visit:
    """A scan with its brain mask and measurements. The mask is on the scan's grid.

    The last three fields are None if the user gave a brain mask.
    """

    scan: Scan
    # {voxel side in mm: the scan, float32, 0 to 1, roughly corrected for bias}, for registrations
    flat: dict[float, sitk.Image]
    brain: sitk.Image  # uint8
    to_atlas: sitk.AffineTransform | None  # from points of the atlas to points of this visit
    atlas_correlation: float | None
    grey_to_white: float | None  # ratio of the brightness of grey matter to that of white matter


@dataclass(frozen=True)
class Registered:
    """Two visits, and the rigid transform from points of the first to points of the second."""

    visits: tuple[Visit, Visit]
    transform: sitk.Euler3DTransform
    correlation: float  # of the visits inside the first one's brain, roughly corrected for bias
    mirror_gain: float  # gain of correlation if the second visit is mirrored, on a coarser grid


def register_visits(
    scans: tuple[Scan, Scan], brains: tuple[sitk.Image | None, sitk.Image | None] = (None, None)
) -> Registered:
    """Register two visits. They may be any distance apart, and rotated by up to 30 degrees.

    Args:
      brains: masks that the user gives, each on its visit's grid. If both are None, the atlas finds
        the brains. If one is None, that visit gets the mask of the other.

    Raises:
      InputError: A scan shows no head, or is not a FLAIR. The visits do not match, or one of them
        is mirrored.
    """
    if all(brain is None for brain in brains):
        return _match_brains(*_find_brains(scans))
    start = _match_heads(scans, (seen(scans[0].image), seen(scans[1].image)), [])
    found = _match_brains(_with_given_brains(scans, brains, start), start)
    if any(brain is None for brain in brains):
        # Resample the given mask to the other visit again, now with the accurate transform.
        visits = _with_given_brains(scans, brains, found.transform)
        found = replace(found, visits=visits)
    return found


def without_coarse_images(registered: Registered) -> Registered:
    """Return registered visits without the images that only the registration needs."""
    first, second = (replace(visit, flat={}) for visit in registered.visits)
    return replace(registered, visits=(first, second))


def look_at(scan: Scan, otherwise: str = GIVE_MASKS) -> Visit:
    """Find the brain of a single scan with the atlas.

    Args:
      otherwise: advice for the error message: what to do if the scan cannot be used.

    Raises:
      InputError: The scan shows no head, or is not a FLAIR.
    """
    atlas, head = load_atlas(), seen(scan.image)
    fit = fit_atlas(atlas, head, [_pose(atlas, scan, head, otherwise)])
    return _find_in(atlas, scan, fit, otherwise=otherwise)


def _find_brains(scans: tuple[Scan, Scan]) -> tuple[tuple[Visit, Visit], sitk.Transform]:
    """Find both brains with the atlas. Also find the transform between the visits, to a few mm."""
    atlas, heads = load_atlas(), (seen(scans[0].image), seen(scans[1].image))
    pose = _pose(atlas, scans[0], heads[0])
    transform = _match_heads(scans, heads, [])
    fits = at_once(
        partial(fit_atlas, atlas, heads[0], [pose]),
        partial(fit_atlas, atlas, heads[1], [compose(transform, pose)]),
    )
    if not min(found for _, found in fits) >= SURE_ATLAS:
        # One of the two searches may have failed. Add a third one, from the atlas to the second
        # visit. Any two correct results determine the third.
        other = _pose(atlas, scans[1], heads[1])
        transform = _match_heads(scans, heads, [compose(other, pose.GetInverse())])
        back = compose(transform.GetInverse(), other)
        fits = at_once(
            partial(fit_atlas, atlas, heads[0], [pose, back]),
            partial(fit_atlas, atlas, heads[1], [other, compose(transform, pose)]),
        )
    sides_mm = _sides_mm(scans)
    first, second = at_once(
        *(partial(_find_in, atlas, *one, sides_mm) for one in zip(scans, fits, strict=True)),
        voxels=_voxels(scans),
    )
    return (first, second), transform


def _voxels(scans: tuple[Scan, Scan]) -> int:
    return max(scan.image.GetNumberOfPixels() for scan in scans)


def _sides_mm(scans: tuple[Scan, Scan]) -> tuple[float, ...]:
    """Return the voxel sides of the images that `_match_brains` compares."""
    return tuple(dict.fromkeys((PROBE_MM, COMPARE_MM, *_fine_mm(scans))))


def _fine_mm(scans: tuple[Scan, Scan]) -> tuple[float, ...]:
    """Return the voxel sides of the final registration. Finer ones than the scans' are left out."""
    finest_mm = min(min(scan.image.GetSpacing()) for scan in scans)
    return FINE_MM[:1] + tuple(mm for mm in FINE_MM[1:] if mm > finest_mm)


def _pose(
    atlas: Atlas, scan: Scan, head: sitk.Image, otherwise: str = GIVE_MASKS
) -> sitk.Transform:
    try:
        return find_pose(atlas, head)
    except RuntimeError as error:
        found = "an average brain does not overlap with it at any position"
        raise _no_head(scan, found, otherwise) from error


def _no_head(scan: Scan, found: str, otherwise: str) -> InputError:
    return InputError(
        f"{scan.path}: no head was found in it ({found}); expected a FLAIR of a head with most of "
        f"the brain in view. Look at the image. If it is such a FLAIR, {otherwise}."
    )


def _match_heads(
    scans: tuple[Scan, Scan], heads: tuple[sitk.Image, sitk.Image], more: list[sitk.Transform]
) -> sitk.Euler3DTransform:
    """Register the whole heads of the visits, with an accuracy of a few mm."""
    cut = [capped(head) for head in heads]
    masks = [sitk.OtsuThreshold(isotropic(head, PROBE_MM), 0, 1) for head in cut]
    first, second = (centre_of(mask) for mask in masks)
    # Include some air around the head, so that its outline is compared, too.
    around = sitk.BinaryDilate(sitk.BinaryFillhole(masks[0]), (3, 3, 3))
    try:
        return search(cut[0], cut[1], around, first, [second - first], more)
    except RuntimeError as error:
        raise InputError(
            f"{scans[0].path} and {scans[1].path}: the visits do not overlap at any rotation that "
            "was tried; expected two scans of one head. Look at both scans."
        ) from error


def _find_in(
    atlas: Atlas,
    scan: Scan,
    fit: tuple[sitk.AffineTransform, float],
    sides_mm: tuple[float, ...] = (),
    otherwise: str = GIVE_MASKS,
) -> Visit:
    """Find the brain of a visit, starting from the result of `fit_atlas`.

    Args:
      sides_mm: voxel sides of the images that the visit will hold for registrations.

    Raises:
      InputError: The atlas does not fit, or the scan is not a FLAIR.
    """
    to_atlas, found = fit
    if not found >= LEAST_ATLAS:
        raise _no_head(
            scan,
            f"the correlation with an average brain is {found:.2f}; expected at least "
            f"{LEAST_ATLAS}",
            otherwise,
        )
    matrix, _ = matrix_of(to_atlas)
    sizes = np.linalg.svd(matrix, compute_uv=False)
    if not (sizes.min() >= SIZES[0] and sizes.max() <= SIZES[1]):
        worst = max(sizes, key=lambda size: abs(math.log(size)))
        raise _no_head(
            scan,
            f"an average brain would have to be stretched to {worst:.2g} times its length; "
            f"expected {SIZES[0]:g} to {SIZES[1]:g} times",
            otherwise,
        )
    prior = brain_by_atlas(atlas, to_atlas, scan.image)
    check_volume(prior, str(scan.path), otherwise)
    flat = without_peaks(correct_bias(scan.image, prior, rough=True))
    grey, white = (
        _median(flat, on_grid(tissue, flat, to_atlas.GetInverse()))
        for tissue in (atlas.grey, atlas.white)
    )
    ratio = grey / white if white > 0 else math.nan
    if not ratio >= LEAST_GREY_TO_WHITE:
        raise InputError(
            f"{scan.path}: grey matter is {ratio:.2f} times as bright as white matter; expected at "
            f"least {LEAST_GREY_TO_WHITE:g} times, as in a FLAIR. This looks like a T1-weighted "
            f"image. If it is a FLAIR, {otherwise}."
        )
    coarse, edges = coarser(flat, sides_mm), for_edges(flat)
    del flat  # it is large, and finding the brain needs memory
    return Visit(scan, coarse, find_brain(edges, prior), to_atlas, found, ratio)


def coarser(image: sitk.Image, sides_mm: tuple[float, ...]) -> dict[float, sitk.Image]:
    """Return an image on cubic voxels of several sides. They need less memory than a large scan."""
    return {mm: isotropic(image, mm) for mm in sides_mm}


def _median(image: sitk.Image, mask: sitk.Image) -> float:
    values = inside_of(image, mask)
    return float(np.median(values, overwrite_input=True)) if values.size else math.nan


def _with_given_brains(
    scans: tuple[Scan, Scan],
    brains: tuple[sitk.Image | None, sitk.Image | None],
    transform: sitk.Transform,
) -> tuple[Visit, Visit]:
    first, second = brains
    if first is None:
        assert second is not None  # one of them is given
        first = on_grid(second, scans[0].image, transform)
    if second is None:
        second = on_grid(first, scans[1].image, transform.GetInverse())

    def visit(scan: Scan, brain: sitk.Image) -> Visit:
        flat = without_peaks(correct_bias(scan.image, brain, rough=True))
        return Visit(scan, coarser(flat, sides_mm), brain, None, None, None)

    sides_mm = _sides_mm(scans)
    one, other = at_once(
        partial(visit, scans[0], first), partial(visit, scans[1], second), voxels=_voxels(scans)
    )
    return one, other


def check_volume(brain: sitk.Image, name: str, otherwise: str = GIVE_MASKS) -> None:
    """Raise InputError if the volume of a brain mask is implausible for an adult.

    Args:
      name: the scan or the mask, for the message.
      otherwise: advice for the message: what to do if the scan cannot be used.
    """
    low, high = BRAIN_ML
    if not low <= (found_ml := volume_ml(brain)) <= high:
        raise InputError(
            f"{name}: the brain mask has a volume of {found_ml:.0f} ml; expected {low:.0f} to "
            f"{high:.0f} ml for an adult. Look at the scan, and {otherwise}."
        )


def _match_brains(visits: tuple[Visit, Visit], start: sitk.Transform) -> Registered:
    """Register the visits inside their brains only, with an accuracy of a fraction of a voxel."""
    for visit in visits:
        check_volume(visit.brain, str(visit.scan.path))
    first, second = visits
    transform = nearest_rigid(start, centre_of(first.brain))
    edges, mirrored = at_once(
        partial(_refine_inside, visits, transform), partial(_correlation_mirrored, visits)
    )
    reached = _correlation_inside(visits, transform, COMPARE_MM)
    as_they_are = _correlation_inside(visits, transform, PROBE_MM)
    names = f"{first.scan.path} and {second.scan.path}"
    if mirrored >= LEAST_VISITS and mirrored > as_they_are + MOST_MIRROR_GAIN:
        raise InputError(
            f"{names}: left and right are swapped in one visit. The visits match better if one is "
            f"mirrored (correlation {mirrored:.2f} instead of {as_they_are:.2f}). Export both "
            "again from the original files of the scanner."
        )
    if not reached >= LEAST_VISITS:
        raise InputError(
            f"{names}: the visits do not match inside the brain. Their correlation is "
            f"{reached:.2f}; expected at least {LEAST_VISITS}. Check that both are FLAIRs of one "
            "patient."
        )
    if edges < LEAST_CORRELATION - MOST_FINE_GAIN:
        raise InputError(
            f"{names}: the visits do not match inside the brain. Their edges have a correlation of "
            f"{edges:.2f}; expected at least {LEAST_CORRELATION}. Check that both are FLAIRs of "
            "one patient."
        )
    return Registered(visits, transform, reached, mirrored - as_they_are)


def _refine_inside(visits: tuple[Visit, Visit], transform: sitk.Transform) -> float:
    """Refine the transform between the visits in-place, inside the first brain.

    Returns:
      The correlation of the edges of both visits after the first, coarser step. If the visits are
      not of one head, the finer steps are left out. They would take long, and fail.
    """
    first, second = visits
    coarse_mm, *finer_mm = _fine_mm((first.scan, second.scan))
    refine_on(first.flat[coarse_mm], second.flat[coarse_mm], first.brain, transform)
    edges = _correlation_of_edges(visits, transform)
    reached = _correlation_inside(visits, transform, COMPARE_MM)
    is_hopeless = (
        edges < LEAST_CORRELATION - MOST_FINE_GAIN or reached < LEAST_VISITS - MOST_FINE_GAIN
    )
    if not is_hopeless:
        for mm in finer_mm:
            refine_on(first.flat[mm], second.flat[mm], first.brain, transform)
    return edges


def _correlation_of_edges(visits: tuple[Visit, Visit], transform: sitk.Transform) -> float:
    """Return the correlation of `volumes.alignment`, on voxels of COMPARE_MM."""
    fixed, moving = (visit.flat[COMPARE_MM] for visit in visits)
    there = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)
    brain = on_grid(visits[0].brain, fixed) & coverage(moving, fixed, transform)
    first, second = (sitk.GetArrayViewFromImage(image).T for image in (fixed, there))
    spacing_mm = np.array(fixed.GetSpacing())
    return measure_alignment(first, second, is_set(brain), spacing_mm).correlation


def _correlation_inside(
    visits: tuple[Visit, Visit], transform: sitk.Transform, spacing_mm: float
) -> float:
    """Return the correlation of the visits inside the first brain, on voxels of `spacing_mm`."""
    fixed, moving = (visit.flat[spacing_mm] for visit in visits)
    return correlation(fixed, moving, on_grid(visits[0].brain, fixed), transform)


def _correlation_mirrored(visits: tuple[Visit, Visit]) -> float:
    """Return the best correlation if the second visit is mirrored, on voxels of PROBE_MM."""
    fixed, moving = (visit.flat[PROBE_MM] for visit in visits)
    inside = on_grid(visits[0].brain, fixed)
    # A reflection is not a rigid motion, so the search cannot find it. Instead, the header of the
    # image is changed: left and right of the scanner are swapped at the brain's centre. The search
    # then finds the rotation and the shift.
    flip = np.diag([-1.0, 1.0, 1.0])
    there = centre_of(visits[1].brain)
    reflected = sitk.Image(moving)
    reflected.SetDirection((flip @ np.array(moving.GetDirection()).reshape(3, 3)).ravel().tolist())
    reflected.SetOrigin((flip @ (np.array(moving.GetOrigin()) - there) + there).tolist())
    centre = centre_of(inside)
    found = search(fixed, reflected, inside, centre, [there - centre])
    return correlation(fixed, reflected, inside, found)
