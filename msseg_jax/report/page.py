"""Everything into one HTML file that needs nothing else, not even a network."""

from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from nibabel.affines import apply_affine

from msseg_jax import __version__
from msseg_jax.report.slices import WINDOW, Slice, lesion_name, make_slices
from msseg_jax.report.view import EDGES, AxialView
from msseg_jax.system.atomic import write_beside
from msseg_jax.volumes.lesions import CENTRE

MIDLINE_MM = 5.0  # nearer than this to the middle of the brain mask is neither left nor right
MOST_ROWS = 20  # of a lesion table before it is folded
TILT_DEGREES = 10.0  # a grid more oblique than this is worth a word


@dataclass(frozen=True)
class Section:
    """One patient's part of a page."""

    name: str
    anchor: str  # of links within the page
    slices: list[Slice]
    lesions: list[dict]  # rows of `lesion_rows`
    warnings: list[str]
    tilt_degrees: float
    facts: list[tuple[str, str]]  # what else to state: label and value


def make_section(
    name: str,
    anchor: str,
    visits: tuple[np.ndarray, np.ndarray],
    brain: np.ndarray,
    affine: np.ndarray,
    lesions: dict[str, np.ndarray],
    rows: dict[str, list[dict]],
    warnings: list[str],
    facts: list[tuple[str, str]],
) -> Section:
    """A patient's pictures and table.

    Args:
      visits: the first and the second, (D, H, W).
      brain: (D, H, W) bool.
      affine: (4, 4), voxel indices to scanner mm.
      lesions: 'reference' or 'prediction' to its numbered lesions, (D, H, W) int.
      rows: the same to what `describe_lesions` says of them, with more columns if wanted. Where
        its centres are not in mm of this grid, `shown_at_mm` is the centre in these, (3,).
    """
    view = AxialView.of(affine, brain.shape)
    slices, shown_in = make_slices(view, visits, brain, lesions)
    middle = apply_affine(affine, np.argwhere(brain).mean(axis=0))
    # Along the pictures' columns, so that word and picture agree on an oblique grid too.
    to_right = -view.affine[:3, 2] / np.linalg.norm(view.affine[:3, 2])
    table = [
        row
        | {
            "name": lesion_name(kind, row["lesion"]),
            "kind": kind,
            "side": side_of((_place_of(row) - middle) @ to_right),
            "slice": shown_in.get(lesion_name(kind, row["lesion"])),
        }
        for kind, kind_rows in rows.items()
        for row in kind_rows
    ]
    return Section(name, anchor, slices, table, warnings, view.tilt_degrees, facts)


def _place_of(row: dict) -> np.ndarray:
    """Where a lesion is in the pictures, (3,) mm."""
    return np.asarray(row.get("shown_at_mm", [row[k] for k in CENTRE]))


def side_of(offset_mm: float) -> str:
    """The patient's side of a point `offset_mm` towards the patient's right of the middle."""
    if abs(offset_mm) < MIDLINE_MM:
        return "middle"
    return "right" if offset_mm > 0 else "left"


def write_page(path: Path, template: str, **content) -> None:
    """Render a template of this package into a file, beside its place and then renamed."""
    environment = Environment(
        loader=PackageLoader("msseg_jax.report", "templates"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html = environment.get_template(template).render(
        style=files("msseg_jax.report").joinpath("templates/style.css").read_text(),
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        edges=EDGES,
        window=WINDOW,
        midline_mm=MIDLINE_MM,
        most_rows=MOST_ROWS,
        most_tilt_degrees=TILT_DEGREES,
        version=__version__,
        **content,
    )
    write_beside(path, lambda file: file.write_text(html, encoding="utf-8"))
