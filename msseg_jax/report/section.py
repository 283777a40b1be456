"""One patient's part of a page: pictures of the pair, and a table of its lesions."""

from dataclasses import dataclass, replace

import numpy as np
from nibabel.affines import apply_affine

from msseg_jax.report.slices import PageSlice, lesion_name, make_slices
from msseg_jax.report.view import AxialView
from msseg_jax.volumes.lesions import CENTRE
from msseg_jax.volumes.pair import Pair

MIDLINE_MM = 5.0  # nearer than this to the middle of the brain mask is neither left nor right

Fact = tuple[str, str]  # what else to state: label and value


@dataclass(frozen=True)
class PatientSection:
    """What a page shows of one patient; without pictures until `add_pictures` adds them."""

    name: str
    anchor: str  # of links within the page
    warnings: list[str]
    facts: list[Fact]
    slices: tuple[PageSlice, ...] = ()
    lesions: tuple[dict, ...] = ()  # rows of `ShownLesions`, with their names, sides and slices
    tilt_degrees: float = 0.0  # of the grid against the scanner's axes


@dataclass(frozen=True)
class ShownLesions:
    """The lesions of one mask, to be drawn and listed."""

    labels: np.ndarray  # (D, H, W) int on the grid of the pictures, numbered
    rows: list[dict]  # what `describe_lesions` says of them, with more columns if there are any
    # (N, 3), where they are in scanner mm of the pictures; None: where their rows say
    centres_mm: np.ndarray | None = None


def add_pictures(
    section: PatientSection, pair: Pair, lesions: dict[str, ShownLesions]
) -> PatientSection:
    """Return a section with the slices that matter, and its lesions as a table.

    Args:
      lesions: by kind, 'reference' or 'prediction'.
    """
    affine, brain = pair.time01.affine, pair.brain
    view = AxialView.of(affine, brain.shape)
    labels = {kind: shown.labels for kind, shown in lesions.items()}
    slices, shown_in = make_slices(view, (pair.time01.array, pair.time02.array), brain, labels)
    middle = apply_affine(affine, np.argwhere(brain).mean(axis=0))
    # Along the pictures' columns, so that word and picture agree on an oblique grid too.
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
    """Return where lesions are in the pictures, (N, 3) mm."""
    if shown.centres_mm is not None:
        return shown.centres_mm
    return np.array([[row[k] for k in CENTRE] for row in shown.rows])


def side_of(offset_mm: float) -> str:
    """Return the patient's side of a point `offset_mm` towards the right of the middle."""
    if abs(offset_mm) < MIDLINE_MM:
        return "middle"
    return "right" if offset_mm > 0 else "left"
