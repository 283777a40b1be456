"""Choose the slices of a pair to show, and draw each as two pictures with outlines."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from msseg_jax.report.grey import as_jpeg, brightness_of_both, to_grey
from msseg_jax.volumes.axial_view import AxialView
from msseg_jax.volumes.grids import bounding_box, with_margin

MARGIN_MM = 6.0  # margin of the pictures around the brain
MOST_SLICES = 24  # upper bound for one pair
SHOWN_SHARE = 0.5  # a slice shows a lesion if it has this share of its largest cross-section


@dataclass(frozen=True)
class LesionOutline:
    """The outline of a lesion in one slice, in pixels from the picture's upper left corner."""

    name: str  # of the lesion, such as P1
    kind: str  # reference, prediction, enlarging or vanished
    path: str  # SVG
    label: tuple[float, float]  # column and row next to which the name is written


@dataclass(frozen=True)
class PageSlice:
    """One axial slice of both visits."""

    number: int  # 1 for the lowest slice of the volume
    height_mm: float  # z of the slice in scanner coordinates
    pictures: tuple[str, str]  # data URIs, first and second visit
    pixels: tuple[int, int]  # columns and rows
    pixel_mm: tuple[float, float]  # width and height of a pixel
    outlines: tuple[LesionOutline, ...]
    # SVG paths of the part of the brain that one visit lacks: its area in mm, and its outline in
    # pixels. None if the slice has no such part.
    no_data: tuple[str, str] | None = None

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the pictures in mm."""
        return self.pixels[0] * self.pixel_mm[0], self.pixels[1] * self.pixel_mm[1]


def make_slices(
    view: AxialView,
    visits: tuple[np.ndarray, np.ndarray],
    brain: np.ndarray,
    lesions: dict[str, np.ndarray],
    no_data: np.ndarray | None = None,
) -> tuple[list[PageSlice], dict[str, int]]:
    """Draw the slices of a pair that show its lesions, from the highest to the lowest.

    If a part of the brain has no data at a visit, a slice shows it, too.

    Args:
      visits: the images of the first and the second visit, (D, H, W) each.
      brain: (D, H, W) bool.
      lesions: {kind, such as 'prediction': numbered lesions, (D, H, W) int}.
      no_data: (D, H, W), the code of the visit in the part of the brain that it lacks, and 0
        elsewhere; None if no visit lacks a part.

    Returns:
      The slices, and {name of a lesion: number of the slice that shows it best}.
    """
    brain = view(brain)
    labels = {kind: view(array) for kind, array in lesions.items()}
    codes = np.zeros(brain.shape, np.uint8) if no_data is None else view(no_data)
    lacking = codes > 0
    chosen, shown_in = choose_slices(labels, brain)
    for code in np.unique(codes[lacking]):
        areas = (codes == code).sum(axis=(1, 2))
        if not any(areas[number] >= SHOWN_SHARE * areas.max() for number in chosen):
            chosen.add(int(areas.argmax()))
    everything = brain | lacking | np.any([array > 0 for array in labels.values()], axis=0)
    row_mm, column_mm = view.pixel_mm
    margins = [0, *(int(np.ceil(MARGIN_MM / mm)) for mm in view.pixel_mm)]
    box = with_margin(bounding_box(everything), margins, view.shape)
    drawn = brightness_of_both((view(visits[0]), view(visits[1])), brain)
    slices = []
    for number in sorted(chosen, reverse=True):
        first, second = (to_grey(visit[number][box[1:]]) for visit in drawn)
        outlines = [
            outline
            for kind, array in labels.items()
            for outline in _outlines(kind, array[number][box[1:]])
        ]
        part = lacking[number][box[1:]]
        rows, columns = first.shape
        slices.append(
            PageSlice(
                number + 1, view.height_mm(number), (_jpeg(first), _jpeg(second)),
                (columns, rows), (column_mm, row_mm), tuple(outlines),
                (area_path(part, (column_mm, row_mm)), outline_path(part)) if part.any() else None,
            )
        )  # fmt: skip
    return slices, {name: number + 1 for name, number in shown_in.items()}


def lesion_name(kind: str, number: int) -> str:
    """Return the name of a lesion: R1 for the largest in the reference, P1 in the prediction.

    The largest of the enlarging lesions is E1, and of the vanished ones V1.
    """
    return f"{kind[0].upper()}{number}"


def choose_slices(
    labels: dict[str, np.ndarray], brain: np.ndarray
) -> tuple[set[int], dict[str, int]]:
    """Choose a few slices that show all lesions: at most MOST_SLICES, the largest lesions first.

    If there are no lesions, choose the slices at one third, one half and two thirds of the height
    of the brain.

    Args:
      labels: the lesions as in `make_slices`, but (slices, rows, columns).
      brain: (slices, rows, columns) bool.

    Returns:
      The numbers of the chosen slices, and {name of a lesion: the chosen slice with most of it}.
      This dictionary leaves out the lesions that no chosen slice contains.
    """
    areas: dict[str, np.ndarray] = {}  # name of a lesion: (slices,) voxels
    for kind, array in labels.items():
        count = int(array.max(initial=0))
        slices, flat = np.nonzero(array)[0], array[array > 0]
        table = np.zeros((len(array), count + 1), dtype=int)
        np.add.at(table, (slices, flat), 1)
        areas |= {lesion_name(kind, k): table[:, k] for k in range(1, count + 1)}
    if not areas:
        occupied = np.flatnonzero(brain.any(axis=(1, 2)))
        return {int(np.quantile(occupied, q, method="nearest")) for q in (1 / 3, 1 / 2, 2 / 3)}, {}

    chosen: set[int] = set()
    for area in sorted(areas.values(), key=lambda area: -area.sum()):
        shown = any(area[number] >= SHOWN_SHARE * area.max() for number in chosen)
        if not shown and len(chosen) < MOST_SLICES:
            chosen.add(int(area.argmax()))
    best = {name: max(chosen, key=lambda number: area[number]) for name, area in areas.items()}
    return chosen, {name: number for name, number in best.items() if areas[name][number]}


def outline_path(mask: np.ndarray) -> str:
    """Return the outline of a mask (rows, columns) along the pixel edges, as an SVG path."""
    return "".join(
        f"M{left} {top}H{right}" if top == bottom else f"M{left} {top}V{bottom}"
        for left, top, right, bottom in outline_edges(mask)
    )


def area_path(mask: np.ndarray, pixel_mm: tuple[float, float]) -> str:
    """Return the area of a mask (rows, columns) as an SVG path in mm: a box for each run of pixels.

    Args:
      pixel_mm: width and height of a pixel.
    """
    width_mm, height_mm = pixel_mm
    return "".join(
        f"M{start * width_mm:.2f} {row * height_mm:.2f}h{(stop - start) * width_mm:.2f}"
        f"v{height_mm:.2f}H{start * width_mm:.2f}z"
        for row in np.flatnonzero(mask.any(axis=1))
        for start, stop in _runs(mask[row])
    )


def outline_edges(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return the pixel edges around a mask (rows, columns): lines (left, top, right, bottom)."""
    padded = np.pad(mask, 1)
    edges = []
    horizontal = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (rows + 1, columns): edge above a pixel
    vertical = padded[1:-1, 1:] != padded[1:-1, :-1]  # (rows, columns + 1): edge left of a pixel
    for row in np.flatnonzero(horizontal.any(axis=1)):
        edges += [(start, int(row), stop, int(row)) for start, stop in _runs(horizontal[row])]
    for column in np.flatnonzero(vertical.any(axis=0)):
        column_edges = _runs(vertical[:, column])
        edges += [(int(column), start, int(column), stop) for start, stop in column_edges]
    return edges


def _runs(flags: np.ndarray) -> list[list[int]]:
    """Return the start and the end (exclusive) of each run of true values."""
    return np.flatnonzero(np.diff(np.pad(flags.astype(np.int8), 1))).reshape(-1, 2).tolist()


def _outlines(kind: str, labels: np.ndarray) -> list[LesionOutline]:
    outlines = []
    for number in np.unique(labels[labels > 0]):
        mask = labels == number
        rows, columns = np.nonzero(mask)
        # Names are written to the left of reference lesions, and to the right of all others.
        column = columns.min() if kind == "reference" else columns.max() + 1
        label = float(column), float((rows.min() + rows.max() + 1) / 2)
        name = lesion_name(kind, number)
        outlines.append(LesionOutline(name, kind, outline_path(mask), label))
    return outlines


def _jpeg(grey: np.ndarray) -> str:
    return as_jpeg(Image.fromarray(grey))
