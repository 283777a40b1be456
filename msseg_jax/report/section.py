"""The section of one patient on a page: pictures of the pair, and a table of its lesions."""

from dataclasses import dataclass, replace

import numpy as np
from nibabel.affines import apply_affine

from msseg_jax.report.slices import PageSlice, lesion_name, make_slices
from msseg_jax.report.view import AxialView
from msseg_jax.volumes.lesions import CENTRE
from msseg_jax.volumes.pair import Pair

MIDLINE_MM = 5.0  # points nearer to the middle of the brain mask are neither left nor right

Fact = tuple[str, str]  # label and value


@dataclass(frozen=True)
class PatientSection:
    """Content of a page for one patient. It has no pictures until `add_pictures` adds them."""

    name: str
    anchor: str  # id of the section, for links within the page
    warnings: list[str]
    facts: list[Fact]
    slices: tuple[PageSlice, ...] = ()
    lesions: tuple[dict, ...] = ()  # rows of `ShownLesions` with name, kind, side and slice
    tilt_degrees: float = 0.0  # angle between the axes of the grid and the scanner


@dataclass(frozen=True)
class ShownLesions:
    """The lesions of one mask, which are drawn and listed."""

    labels: np.ndarray  # (D, H, W) int on the grid of the pictures, numbered
    rows: list[dict]  # from `describe_lesions`, possibly with more columns
    # (N, 3), centres in scanner mm of the pictures; None: as in the rows
    centres_mm: np.ndarray | None = None


def add_pictures(
    section: PatientSection, pair: Pair, lesions: dict[str, ShownLesions]
) -> PatientSection:
    """Return the section with the slices that show the lesions, and a table of the lesions.

    Args:
      lesions: {kind: lesions of this kind}; the kinds are 'reference' and 'prediction'.
    """
    affine, brain = pair.time01.affine, pair.brain
    view = AxialView.of(affine, brain.shape)
    labels = {kind: shown.labels for kind, shown in lesions.items()}
    slices, shown_in = make_slices(view, (pair.time01.array, pair.time02.array), brain, labels)
    middle = apply_affine(affine, np.argwhere(brain).mean(axis=0))
    # The horizontal direction of the pictures, so that the stated side matches the pictures on an
    # oblique grid, too.
    to_right = -view.affine[:3, 2] / np.linalg.norm(view.affine[:3, 2])
    table = [
        row
        | {
            "name": lesion_name(kind, row["lesion"]),
            "kind": kind,
            "side": side_of((centre - middle) @ to_right),
            "slice": shown_in.get(lesion_name(kind, row["lesion"])),
        }
        for kind, shown in lesions.items()
        for row, centre in zip(shown.rows, _centres_of(shown), strict=True)
    ]
    return replace(
        section, slices=tuple(slices), lesions=tuple(table), tilt_degrees=view.tilt_degrees
    )


def _centres_of(shown: ShownLesions) -> np.ndarray:
    """Return the centres of lesions in the pictures, (N, 3) scanner mm."""
    if shown.centres_mm is not None:
        return shown.centres_mm
    return np.array([[row[k] for k in CENTRE] for row in shown.rows])


def side_of(offset_mm: float) -> str:
    """Return the patient's side on which a point lies, `offset_mm` to the right of the middle."""
    if abs(offset_mm) < MIDLINE_MM:
        return "middle"
    return "right" if offset_mm > 0 else "left"
