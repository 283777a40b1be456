"""Draw a picture of a prepared pair, to check by eye if the visits and the brain mask match."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from msseg_jax.prepare.registration import centre_of, corners_of
from msseg_jax.volumes.grids import bounding_box

PIXEL_MM = 1.0
MARGIN_MM = 12.0  # around the brain
TILE_MM = 20.0  # side of a square of the checkerboard
MM_PER_INCH = 50.0  # scale of the picture, which has 100 pixels per inch
HEAD_INCHES = 0.65  # height of the title and the column names
WINDOW = (0.5, 99.5)  # percentiles inside the brain that are drawn black and white
OUTLINE = "#e69f00"
# (name, axis of the array (z, y, x), letters at left and right, letters at top and bottom). The
# planes are seen from the feet, from the front and from the patient's left.
PLANES = (
    ("axial", 0, ("R", "L"), ("A", "P")),
    ("coronal", 1, ("R", "L"), ("S", "I")),
    ("sagittal", 2, ("A", "P"), ("S", "I")),
)


def view_of(image: sitk.Image, brain: sitk.Image) -> np.ndarray:
    """Return a visit as it is drawn: on an upright grid around the brain, from 0 to 1.

    Args:
      brain: uint8, on the grid of the image.
    """
    grid = _upright_grid(brain)
    mask = _resampled(brain, grid, sitk.sitkNearestNeighbor) > 0
    return _grey(_resampled(image, grid, sitk.sitkLinear), mask)


def draw_pair(
    path: Path, title: str, visits: tuple[np.ndarray, np.ndarray], brain: sitk.Image
) -> None:
    """Write a PNG that shows three planes through the middle of the brain.

    Its three columns show the first visit, the second visit, and a checkerboard of both. Each panel
    has the outline of the brain.

    Args:
      visits: both visits, from `view_of`.
      brain: uint8, on the grid of the visits before `view_of`.
    """
    mask = _resampled(brain, _upright_grid(brain), sitk.sitkNearestNeighbor) > 0
    # 8 bits, because the grid has millions of voxels
    i, j, k = (
        (places // int(TILE_MM / PIXEL_MM)).astype(np.uint8)
        for places in np.ogrid[tuple(map(slice, mask.shape))]
    )
    columns = {
        "first visit": visits[0],
        "second visit": visits[1],
        "both, in squares": np.where((i + j + k) % 2, *visits),
    }
    middle = [int(np.median(places)) for places in np.nonzero(mask)]
    heights = [_slice(mask, axis, middle).shape[0] for _, axis, *_ in PLANES]
    widths = [_slice(mask, axis, middle).shape[1] for _, axis, *_ in PLANES]
    width, height = 3 * max(widths) / MM_PER_INCH, sum(heights) / MM_PER_INCH + HEAD_INCHES
    figure = Figure(figsize=(width, height), dpi=100, facecolor="black")
    figure.subplots_adjust(0, 0, 1, 1 - HEAD_INCHES / height, wspace=0, hspace=0)
    axes = figure.subplots(3, 3, height_ratios=heights)
    for row, (_, axis, sides, ends) in zip(axes, PLANES, strict=True):
        for place, (name, volume) in zip(row, columns.items(), strict=True):
            picture = _slice(volume, axis, middle)
            place.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            place.contour(_slice(mask, axis, middle), [0.5], colors=OUTLINE, linewidths=0.8)
            place.set_axis_off()
            for letter, x, y in (
                (sides[0], 0.02, 0.5), (sides[1], 0.98, 0.5), (ends[0], 0.5, 0.98),
                (ends[1], 0.5, 0.02),
            ):  # fmt: skip
                place.text(
                    x, y, letter, color="white", fontsize=8, transform=place.transAxes,
                    ha={0.02: "left", 0.98: "right"}.get(x, "center"),
                    va={0.02: "bottom", 0.98: "top"}.get(y, "center"),
                )  # fmt: skip
            if axis == 0:
                place.set_title(name, color="white", fontsize=11, pad=4)
    figure.text(0.5, 1 - 0.1 / height, title, color="white", fontsize=12, ha="center", va="top")
    FigureCanvasAgg(figure)  # set explicitly; otherwise matplotlib imports a canvas in `savefig`
    figure.savefig(path, facecolor="black")


def _upright_grid(brain: sitk.Image) -> sitk.Image:
    """Return a grid of cubic voxels along x, y and z around the brain."""
    sides = bounding_box(sitk.GetArrayViewFromImage(brain) > 0)[::-1]
    first, size = [side.start for side in sides], [side.stop - side.start for side in sides]
    box = sitk.RegionOfInterest(brain, size, first)
    centre, corners = centre_of(brain), corners_of(box)
    reach_mm = np.abs(corners - centre).max(axis=0) + MARGIN_MM
    pixels = np.ceil(2 * reach_mm / PIXEL_MM).astype(int)
    grid = sitk.Image(pixels.tolist(), sitk.sitkUInt8)
    grid.SetSpacing((PIXEL_MM,) * 3)
    grid.SetOrigin((centre - reach_mm).tolist())
    return grid


def _resampled(image: sitk.Image, grid: sitk.Image, how: int) -> np.ndarray:
    """Resample to an array with axes that point to the head, the back and the patient's left."""
    return sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), how, 0))


def _grey(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    low, high = np.percentile(array[mask], WINDOW)
    return np.clip((array - low) / max(high - low, 1e-12), 0, 1)


def _slice(array: np.ndarray, axis: int, middle: list[int]) -> np.ndarray:
    """Return a plane through the middle. If the plane contains z, the head is at the top."""
    plane = np.take(array, middle[axis], axis)
    return plane if axis == 0 else plane[::-1]
