"""Draw close-ups of a place in three planes: both visits, with outlines, and their difference."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from PIL import Image, ImageDraw
from scipy import ndimage

from msseg_jax.report.drawn import DrawnPair
from msseg_jax.report.grey import as_jpeg, to_grey
from msseg_jax.report.slices import outline_edges
from msseg_jax.volumes.grids import bounding_box

SIDE_MM = (30.0, 90.0)  # of a close-up; it is MARGIN_MM larger than the lesion on each side
MARGIN_MM = 10.0
PIXELS = 168  # side of a close-up
GAP = 4  # pixels between close-ups
COLUMNS = ("first visit", "second visit", "second visit, outlined", "second minus first visit")
COLOURS = {
    "prediction": "#e69f00", "enlarging": "#009e73", "vanished": "#56b4e9", "reference": "#56b4e9",
}  # fmt: skip
# Axes of a volume (slice, row, column) that a plane shows from top to bottom, from left to right
# (these two ascend), and through the picture; whether the first is reversed; and the patient's
# sides at the edges.
PLANES = {
    "axial": (1, 2, 0, False, "R", "L"),
    "coronal": (0, 2, 1, True, "R", "L"),
    "sagittal": (0, 1, 2, True, "A", "P"),
}


@dataclass(frozen=True)
class CloseUp:
    """Close-ups of one place in one plane."""

    plane: str
    edges: tuple[str, str]  # the patient's side at the left and at the right
    side_mm: float  # width and height of each picture
    picture: str  # data URI of COLUMNS, side by side


class CloseUps:
    """Draws close-ups of a pair."""

    def __init__(self, pair: DrawnPair):
        self._view, self._visits, self._spacing_mm = pair.view, pair.visits, pair.spacing_mm

    def of_lesion(self, mask: np.ndarray, kind: str) -> list[CloseUp]:
        """Return close-ups of a lesion, at its voxel that is nearest to its centre.

        Args:
          mask: (D, H, W) bool.
          kind: gives the colour of the outline.
        """
        seen = self._view(mask)
        voxels = np.argwhere(seen)
        centre = voxels.mean(axis=0)
        at = voxels[np.linalg.norm((voxels - centre) * self._spacing_mm, axis=1).argmin()]
        box = bounding_box(seen)
        extent_mm = max(
            (side.stop - side.start) * mm for side, mm in zip(box, self._spacing_mm, strict=True)
        )
        side_mm = float(np.clip(extent_mm + 2 * MARGIN_MM, *SIDE_MM))
        return [self._draw(plane, at, side_mm, seen, kind) for plane in PLANES]

    def of_point(self, point_mm: np.ndarray) -> list[CloseUp]:
        """Return close-ups of a point, (3,) mm, without outlines."""
        at = np.rint(apply_affine(np.linalg.inv(self._view.affine), point_mm)).astype(int)
        at = np.clip(at, 0, np.array(self._view.shape) - 1)
        return [self._draw(plane, at, SIDE_MM[0], None, "prediction") for plane in PLANES]

    def _draw(
        self, plane: str, at: np.ndarray, side_mm: float, mask: np.ndarray | None, kind: str
    ) -> CloseUp:
        down, across, through, is_reversed, *edges = PLANES[plane]
        mm = self._spacing_mm[[down, across]]
        centre = at[[down, across]].astype(float)
        first, second = (
            _part(np.take(visit, at[through], axis=through), centre, side_mm, mm, order=1)
            for visit in self._visits
        )
        outlined = _grey(second)
        if mask is not None:
            inside = np.take(mask, at[through], axis=through).astype(np.float32)
            # Voxels keep their shape, so that the outline follows their edges.
            marked = _part(inside, centre, side_mm, mm, order=0) > 0.5
            draw = ImageDraw.Draw(outlined)
            for edge in outline_edges(marked):
                draw.line(edge, fill=COLOURS[kind])
        pictures = [_grey(first), _grey(second), outlined, _grey(0.5 + (second - first))]
        if is_reversed:
            pictures = [one.transpose(Image.Transpose.FLIP_TOP_BOTTOM) for one in pictures]
        return CloseUp(plane, (edges[0], edges[1]), side_mm, _row(pictures))


def _part(
    plane: np.ndarray, centre: np.ndarray, side_mm: float, mm: np.ndarray, order: int
) -> np.ndarray:
    """Resample a square of `side_mm` around a pixel to PIXELS x PIXELS; 0 outside the plane."""
    pixel = side_mm / PIXELS / mm
    start = centre - pixel * (PIXELS - 1) / 2
    return ndimage.affine_transform(
        plane, pixel, start, output_shape=(PIXELS, PIXELS), order=order, mode="constant"
    )


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(to_grey(values)).convert("RGB")


def _row(pictures: list[Image.Image]) -> str:
    """Return pictures side by side as a data URI."""
    width = len(pictures) * (PIXELS + GAP) - GAP
    row = Image.new("RGB", (width, PIXELS), "white")
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * (PIXELS + GAP), 0))
    return as_jpeg(row)
