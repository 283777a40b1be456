"""Where the first visit lies on the second, and where the brain is in each.

Both questions help each other: whole heads find each other from far away, an atlas finds the brain
in each, and the brains alone say how the visits lie to each other in the end, whatever jaw, neck
and scalp do.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import SimpleITK as sitk

from msseg_jax.data.quality import BRAIN_ML
from msseg_jax.prepare.atlas import (
    Atlas,
    brain_by_atlas,
    find_pose,
    fit_atlas,
    load_atlas,
    seen,
)
from msseg_jax.prepare.bias import correct_bias
from msseg_jax.prepare.brain_mask import find_brain
from msseg_jax.prepare.images import capped, volume_ml, without_peaks
from msseg_jax.prepare.registration import (
    PROBE_MM,
    centre_of,
    compose,
    correlation,
    isotropic,
    matrix_of,
    nearest_rigid,
    on_grid,
    refine,
    search,
)
from msseg_jax.prepare.scan import Scan
from msseg_jax.prepare.threads import at_once
from msseg_jax.system.errors import InputError

FINE_MM = (2.0, 1.0)  # voxel sides of the last descents between the visits
COMPARE_MM = 2.0  # of the correlations by which a result is judged

# Bounds of this project's own choosing; what real pairs reach stands in docs/prepare.md.
LEAST_ATLAS = 0.6  # correlation with the atlas
SIZES = (0.8, 1.2)  # of a brain, along any direction, over the atlas's
SURE_ATLAS = 0.8  # from here on nothing else is tried
LEAST_VISITS = 0.5  # of the visits with each other inside the brain
LEAST_GREY_TO_WHITE = 0.95  # brightness: FLAIR shows grey matter brighter than white, T1 darker
MOST_MIRROR_GAIN = 0.02  # in correlation, by mirroring one visit

GIVE_MASKS = (
    "give brain masks (--brain_mask01, --brain_mask02) or a program that makes them "
    "(--brain_mask_command)"
)


@dataclass(frozen=True)
class Visit:
    """A scan with what was found in it, on its own grid."""

    scan: Scan
    flat: sitk.Image  # float32, 0 to 1, without much bias: what registrations compare
    brain: sitk.Image  # uint8
    to_atlas: sitk.AffineTransform | None  # from the atlas's points to this visit's
    atlas_correlation: float | None
    grey_to_white: float | None  # brightness of grey over white matter


@dataclass(frozen=True)
class Registered:
    """Two visits, and the rigid transform from points of the first to points of the second."""

    visits: tuple[Visit, Visit]
    transform: sitk.Euler3DTransform
    correlation: float  # of the visits inside the first one's brain, without bias
    mirror_gain: float  # in correlation, on a coarser grid, with the second visit mirrored


def register_visits(
    scans: tuple[Scan, Scan], brains: tuple[sitk.Image | None, sitk.Image | None] = (None, None)
) -> Registered:
    """Bring two visits onto each other, from up to 30 degrees and any distance apart.

    Args:
      brains: masks that somebody else made, each on its visit's grid; where both are None an atlas
        is used, and where one is, that visit's is the other's.

    Raises:
      InputError: no head, no FLAIR, or visits that do not match; mirrored ones.
    """
    if all(brain is None for brain in brains):
        return _match_brains(*_find_brains(scans))
    start = _match_heads(scans, (seen(scans[0].image), seen(scans[1].image)), [])
    found = _match_brains(_with_given_brains(scans, brains, start), start)
    if any(brain is None for brain in brains):  # now that it is known where the given one lies
        visits = _with_given_brains(scans, brains, found.transform)
        found = replace(found, visits=visits)
    return found


def look_at(scan: Scan, otherwise: str = GIVE_MASKS) -> Visit:
    """The brain of one scan alone, by the atlas.

    Args:
      otherwise: what to do with a scan that will not do, for the message.

    Raises:
      InputError: no head, or no FLAIR.
    """
    atlas, head = load_atlas(), seen(scan.image)
    fit = fit_atlas(atlas, head, [_pose(atlas, scan, head)])
    return _find_in(atlas, scan, fit, otherwise)


def _find_brains(scans: tuple[Scan, Scan]) -> tuple[tuple[Visit, Visit], sitk.Transform]:
    """Both brains by the atlas, and the visits' transform to a few mm."""
    atlas, heads = load_atlas(), (seen(scans[0].image), seen(scans[1].image))
    pose = _pose(atlas, scans[0], heads[0])
    transform = _match_heads(scans, heads, [])
    fits = at_once(
        partial(fit_atlas, atlas, heads[0], [pose]),
        partial(fit_atlas, atlas, heads[1], [compose(transform, pose)]),
    )
    if not min(found for _, found in fits) >= SURE_ATLAS:
        # One of the two searches may have gone astray. A third one makes up for it, as any two
        # of them say what the third should.
        other = _pose(atlas, scans[1], heads[1])
        transform = _match_heads(scans, heads, [compose(other, pose.GetInverse())])
        back = compose(transform.GetInverse(), other)
        fits = at_once(
            partial(fit_atlas, atlas, heads[0], [pose, back]),
            partial(fit_atlas, atlas, heads[1], [other, compose(transform, pose)]),
        )
    found = zip(scans, fits, strict=True)
    return tuple(at_once(*(partial(_find_in, atlas, *one) for one in found))), transform


def _pose(atlas: Atlas, scan: Scan, head: sitk.Image) -> sitk.Transform:
    try:
        return find_pose(atlas, head)
    except RuntimeError as error:
        raise _no_head(scan, "nothing in it overlaps with a brain") from error


def _no_head(scan: Scan, found: str) -> InputError:
    return InputError(
        f"{scan.path}: no head was found in it ({found}); expected a FLAIR of a head with most of "
        "the brain in view: look at the image"
    )


def _match_heads(
    scans: tuple[Scan, Scan], heads: tuple[sitk.Image, sitk.Image], more: list[sitk.Transform]
) -> sitk.Euler3DTransform:
    """The visits on each other by all that is in them, to a few mm."""
    cut = [capped(head) for head in heads]
    masks = [sitk.OtsuThreshold(isotropic(head, PROBE_MM), 0, 1) for head in cut]
    first, second = (centre_of(mask) for mask in masks)
    # Some air around the head, so that its outline counts.
    around = sitk.BinaryDilate(sitk.BinaryFillhole(masks[0]), (3, 3, 3))
    try:
        return search(cut[0], cut[1], around, first, [second - first], more)
    except RuntimeError as error:
        raise InputError(
            f"{scans[0].path} and {scans[1].path}: the visits do not overlap however they are "
            "turned; expected two scans of one head: look at both"
        ) from error


def _find_in(
    atlas: Atlas, scan: Scan, fit: tuple[sitk.AffineTransform, float], otherwise: str = GIVE_MASKS
) -> Visit:
    """The brain of a visit, from what `fit_atlas` found.

    Raises:
      InputError: it found no head, or this is no FLAIR.
    """
    to_atlas, found = fit
    if not found >= LEAST_ATLAS:
        raise _no_head(
            scan, f"correlation {found:.2f} with an average brain, at least {LEAST_ATLAS} expected"
        )
    matrix, _ = matrix_of(to_atlas)
    sizes = np.linalg.svd(matrix, compute_uv=False)
    if not (sizes.min() >= SIZES[0] and sizes.max() <= SIZES[1]):
        worst = max(sizes, key=lambda size: abs(math.log(size)))
        raise _no_head(
            scan,
            f"an average brain fits it stretched to {worst:.2g} times its length, {SIZES[0]:g} to "
            f"{SIZES[1]:g} expected",
        )
    prior = brain_by_atlas(atlas, to_atlas, scan.image)
    check_volume(prior, str(scan.path), otherwise)
    flat = without_peaks(correct_bias(scan.image, prior, rough=True))
    brain = find_brain(flat, prior)
    grey, white = (
        _median(flat, on_grid(tissue, flat, to_atlas.GetInverse()))
        for tissue in (atlas.grey, atlas.white)
    )
    ratio = grey / white if white > 0 else math.nan
    if not ratio >= LEAST_GREY_TO_WHITE:
        raise InputError(
            f"{scan.path}: grey matter is {ratio:.2f} times as bright as white matter; expected a "
            f"FLAIR, where it is brighter (at least {LEAST_GREY_TO_WHITE:g} times): this looks "
            f"like a T1-weighted image. If it is a FLAIR, {otherwise}"
        )
    return Visit(scan, flat, brain, to_atlas, found, ratio)


def _median(image: sitk.Image, mask: sitk.Image) -> float:
    values = sitk.GetArrayFromImage(image)[sitk.GetArrayFromImage(mask) > 0]
    return float(np.median(values)) if values.size else math.nan


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
        return Visit(scan, flat, brain, None, None, None)

    return tuple(at_once(partial(visit, scans[0], first), partial(visit, scans[1], second)))


def check_volume(brain: sitk.Image, whose: str, otherwise: str = GIVE_MASKS) -> None:
    """Raises InputError for a brain such as no adult has."""
    low, high = BRAIN_ML
    if not low <= (found_ml := volume_ml(brain)) <= high:
        raise InputError(
            f"{whose}: the brain mask holds {found_ml:.0f} ml; expected {low:.0f} to "
            f"{high:.0f} ml, an adult's brain: look at the scan, and {otherwise}"
        )


def _match_brains(visits: tuple[Visit, Visit], start: sitk.Transform) -> Registered:
    """The visits on each other by their brains alone, to a fraction of a voxel."""
    for visit in visits:
        check_volume(visit.brain, str(visit.scan.path))
    first, second = visits
    transform = nearest_rigid(start, centre_of(first.brain))
    finest_mm = min(min(visit.flat.GetSpacing()) for visit in visits)
    sides_mm = FINE_MM[:1] + tuple(mm for mm in FINE_MM[1:] if mm > finest_mm)
    _, mirrored = at_once(
        partial(refine, first.flat, second.flat, first.brain, transform, sides_mm),
        partial(_correlation_mirrored, visits),
    )
    reached = _correlation_inside(visits, transform, COMPARE_MM)
    as_they_are = _correlation_inside(visits, transform, PROBE_MM)
    names = f"{first.scan.path} and {second.scan.path}"
    if mirrored >= LEAST_VISITS and mirrored > as_they_are + MOST_MIRROR_GAIN:
        raise InputError(
            f"{names}: left and right of one visit are exchanged: mirrored, the visits match "
            f"better (correlation {mirrored:.2f} in place of {as_they_are:.2f}). Export both from "
            "the scanner's own files again"
        )
    if not reached >= LEAST_VISITS:
        raise InputError(
            f"{names}: the visits do not match inside the brain, correlation {reached:.2f}; "
            f"expected at least {LEAST_VISITS}: are both FLAIRs of one patient?"
        )
    return Registered(visits, transform, reached, mirrored - as_they_are)


def _correlation_inside(
    visits: tuple[Visit, Visit], transform: sitk.Transform, spacing_mm: float
) -> float:
    """The visits' correlation inside the first one's brain, on voxels of `spacing_mm`."""
    fixed, moving = (isotropic(visit.flat, spacing_mm) for visit in visits)
    return correlation(fixed, moving, on_grid(visits[0].brain, fixed), transform)


def _correlation_mirrored(visits: tuple[Visit, Visit]) -> float:
    """The best correlation with the second visit mirrored, on voxels of PROBE_MM."""
    fixed, moving = (isotropic(visit.flat, PROBE_MM) for visit in visits)
    inside = on_grid(visits[0].brain, fixed)
    # A reflection is no rigid motion, so the image is what is reflected, by its header: left and
    # right of the scanner through the brain's centre, and how the head lies is searched for.
    flip = np.diag([-1.0, 1.0, 1.0])
    there = centre_of(visits[1].brain)
    reflected = sitk.Image(moving)
    reflected.SetDirection((flip @ np.array(moving.GetDirection()).reshape(3, 3)).ravel().tolist())
    reflected.SetOrigin((flip @ (np.array(moving.GetOrigin()) - there) + there).tolist())
    centre = centre_of(inside)
    found = search(fixed, reflected, inside, centre, [there - centre])
    return correlation(fixed, reflected, inside, found)
