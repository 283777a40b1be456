"""The record of a prepared pair: what was done with what, how well it went, and what to know."""

from importlib.metadata import version
from typing import Any

import numpy as np
import SimpleITK as sitk

from msseg_jax import __version__
from msseg_jax.data.quality import MOST_DISPLACEMENT_MM
from msseg_jax.prepare import bias
from msseg_jax.prepare.bias import field_range
from msseg_jax.prepare.folder import PICTURE
from msseg_jax.prepare.images import volume_ml
from msseg_jax.prepare.middle import Middle
from msseg_jax.prepare.registration import centre_of, motion_of
from msseg_jax.prepare.request import Request
from msseg_jax.prepare.visits import Registered, Visit
from msseg_jax.volumes.alignment import Alignment

MOST_UNSEEN_SHARE = 0.03  # of the brain, outside one visit's field of view, before it is warned of
MOST_COARSER = 1.5  # of one visit's voxels than the other's, before it is warned of


def make_record(
    request: Request,
    registered: Registered,
    middle: Middle,
    corrected: tuple[sitk.Image, ...],
    alignment: Alignment,
) -> dict[str, Any]:
    """Return the record of a pair, as JSON takes it.

    Args:
      corrected: both visits in the middle space, without bias.
      alignment: how well they match there.
    """
    first, second = registered.visits
    turned_degrees, moved_mm = motion_of(registered.transform, centre_of(first.brain))
    return {
        "made_by": {
            "msseg_jax": __version__,
            **{library: version(library) for library in ("SimpleITK", "nilearn", "numpy")},
        },
        "time01": _about_visit(first),
        "time02": _about_visit(second),
        "registration": {
            "turned_degrees": round(turned_degrees, 2),
            "moved_mm": round(moved_mm, 2),
            "correlation": round(registered.correlation, 4),
            "gain_by_mirroring": round(registered.mirror_gain, 4),
            "edges_correlation": round(alignment.correlation, 4),
            "apart_mm": round(alignment.displacement_mm, 2),
        },
        "brain": {
            "source": _source(request),
            "ml": round(volume_ml(middle.brain), 1),
            "in_one_visit_only_ml": round(middle.unseen_ml, 1),
        },
        "bias_field": {
            "full_width_at_half_maximum": bias.FWHM,
            "iterations": bias.ITERATIONS,
            "shrink_factor": bias.SHRINK,
            "control_points": bias.CONTROL_POINTS,
            "largest_over_smallest": [
                round(field_range(before, after, middle.brain), 2)
                for before, after in zip(middle.images, corrected, strict=True)
            ],
        },
        "warnings": find_warnings(
            registered.visits, middle.unseen_ml, volume_ml(middle.brain), alignment
        ),
    }


def _source(request: Request) -> str:
    if request.brain_mask_command:
        return request.brain_mask_command
    given = [str(path) for path in request.brain_masks if path is not None]
    return " and ".join(given) or "atlas (ICBM 152) and the image's edge"


def find_warnings(
    visits: tuple[Visit, Visit], unseen_ml: float, brain_ml: float, alignment: Alignment
) -> list[str]:
    """Return what a reader of the result should know, in words.

    Args:
      unseen_ml: brain in one visit's field of view only.
    """
    found = [
        f"{visit.scan.path} does not say how the patient lies (neither qform nor sform is set): "
        "left and right are a guess."
        for visit in visits
        if not visit.scan.is_oriented
    ]
    if unseen_ml > MOST_UNSEEN_SHARE * brain_ml:
        found.append(
            f"{unseen_ml:.0f} ml of the brain lie outside one visit's field of view, and "
            "nothing is said about new lesions there."
        )
    if alignment.displacement_mm > MOST_DISPLACEMENT_MM:
        found.append(
            f"The visits lie {alignment.displacement_mm:.1f} mm apart inside the brain after "
            f"registration (at most {MOST_DISPLACEMENT_MM:g} mm expected): look at {PICTURE}."
        )
    voxels = [np.prod(visit.scan.image.GetSpacing()) for visit in visits]
    if max(voxels) > MOST_COARSER * min(voxels):
        found.append(
            f"The visits differ in resolution: voxels of {voxels[0]:.1f} and {voxels[1]:.1f} mm3. "
            "Small lesions may show in the finer one alone."
        )
    return found


def _about_visit(visit: Visit) -> dict[str, Any]:
    image = visit.scan.image
    return {
        "path": str(visit.scan.path),
        "series": visit.scan.series,
        "voxels": image.GetSize(),
        "spacing_mm": [round(mm, 4) for mm in image.GetSpacing()],
        "brain_ml": round(volume_ml(visit.brain), 1),
        "correlation_with_atlas": _rounded(visit.atlas_correlation, 4),
        "grey_to_white": _rounded(visit.grey_to_white, 3),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
