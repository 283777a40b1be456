"""The section of one patient on a page: pictures of the pair, and a table of its lesions."""

from dataclasses import dataclass, field, replace

import numpy as np

from msseg_jax.report.closeups import CloseUp, CloseUps
from msseg_jax.report.slices import PageSlice, lesion_name, make_slices
from msseg_jax.volumes.axial_view import AxialView
from msseg_jax.volumes.coverage import empty_warnings
from msseg_jax.volumes.lesions import CENTRE, voxel_mm3
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.sides import sides_of

MOST_CLOSEUPS = 40  # lesions with close-ups; each takes about 60 kB

Fact = tuple[str, str]  # label and value


@dataclass(frozen=True)
class PatientSection:
    """Content of a page for one patient. It has no pictures until `add_pictures` adds them."""

    name: str
    anchor: str  # id of the section, for links within the page
    warnings: list[str]
    facts: list[Fact]
    slices: tuple[PageSlice, ...] = ()
    closeups: dict[str, list[CloseUp]] = field(default_factory=dict)  # by the name of the lesion
    lesions: tuple[dict, ...] = ()  # rows of `ShownLesions` with name, kind, side and picture
    tilt_degrees: float = 0.0  # angle between the axes of the grid and the scanner
    no_data: "NoData | None" = None  # the part of the brain that one visit lacks


@dataclass(frozen=True)
class NoData:
    """The size of the part of the brain that one visit lacks. Lesions are not searched there."""

    by_visit_ml: tuple[float, float]  # without data in the first, and in the second visit
    brain_ml: float  # the whole brain, with this part

    @property
    def ml(self) -> float:
        """Volume of the whole part."""
        return sum(self.by_visit_ml)

    @property
    def percent(self) -> float:
        """Share of the brain."""
        return 100 * self.ml / self.brain_ml

    @property
    def where(self) -> str:
        """Which visit has no data, in words."""
        first_ml, second_ml = self.by_visit_ml
        if first_ml and second_ml:
            return (
                f"the first visit has no data in {first_ml:.0f} ml, and the second visit in "
                f"{second_ml:.0f} ml"
            )
        return f"the {'first' if first_ml else 'second'} visit has no data there"

    @property
    def warnings(self) -> list[str]:
        """The warnings about this part, which the page replaces by a fuller text."""
        return empty_warnings(self.by_visit_ml)


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
      lesions: {kind: lesions of this kind}; the kinds are 'reference', 'prediction' (new lesions),
        'enlarging' and 'vanished'.
    """
    affine, brain = pair.time01.affine, pair.brain
    view = AxialView.of(affine, brain.shape)
    labels = {kind: shown.labels for kind, shown in lesions.items()}
    visits = pair.time01.array, pair.time02.array
    slices, shown_in = make_slices(view, visits, brain, labels, pair.no_data)
    table = [
        row
        | {
            "name": lesion_name(kind, row["lesion"]),
            "kind": kind,
            "side": side,
            "picture": shown_in.get(lesion_name(kind, row["lesion"])),
        }
        for kind, shown in lesions.items()
        for row, side in zip(
            shown.rows, sides_of(centres_of(shown), pair.whole_brain, affine), strict=True
        )
    ]
    return replace(
        section, slices=tuple(slices), lesions=tuple(table), tilt_degrees=view.tilt_degrees,
        no_data=_no_data(pair),
    )  # fmt: skip


def add_closeups(
    section: PatientSection, draw: CloseUps, lesions: dict[str, ShownLesions]
) -> PatientSection:
    """Return the section with close-ups of its lesions: at most MOST_CLOSEUPS, the first ones.

    A lesion that was lost when it was resampled to the pictures has none.

    Args:
      draw: draws close-ups of the pair.
      lesions: as for `add_pictures`.
    """
    found = {}
    for row in section.lesions[:MOST_CLOSEUPS]:
        mask = lesions[row["kind"]].labels == row["lesion"]
        if mask.any():
            found[row["name"]] = draw.of_lesion(mask, row["kind"])
    return replace(section, closeups=found)


def _no_data(pair: Pair) -> NoData | None:
    """Return the size of the part of the brain that one visit lacks, if there is such a part."""
    if pair.no_data is None:
        return None
    searched_ml = float(pair.brain.sum() * voxel_mm3(pair.time01.spacing_mm) / 1000)
    return NoData(pair.empty_ml, searched_ml + sum(pair.empty_ml))


def centres_of(shown: ShownLesions) -> np.ndarray:
    """Return the centres of lesions in the pictures, (N, 3) scanner mm."""
    if shown.centres_mm is not None:
        return shown.centres_mm
    return np.array([[row[k] for k in CENTRE] for row in shown.rows]).reshape(-1, 3)
