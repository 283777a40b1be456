"""Show by squares of both visits, alternating, whether they are aligned."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from msseg_jax.report.closeups import PLANES
from msseg_jax.report.drawn import DrawnPair
from msseg_jax.report.grey import as_jpeg, to_grey
from msseg_jax.volumes.grids import bounding_box, with_margin

SQUARE_MM = 20  # side of a square
MARGIN_MM = 8.0  # around the brain
SCALE = 2  # pixels per mm


def checkerboard(pair: DrawnPair) -> str:
    """Return three planes through the middle of the brain as a data URI."""
    margins = np.ceil(MARGIN_MM / pair.spacing_mm).astype(int)
    box = with_margin(bounding_box(pair.brain), margins, pair.brain.shape)
    greys = [visit[box] for visit in pair.visits]
    middle = [int(np.median(places)) for places in np.nonzero(pair.brain[box])]
    planes = []
    for down, across, through, is_reversed, *_ in PLANES.values():
        mm = pair.spacing_mm[[down, across]] * SCALE
        first, second = (
            ndimage.zoom(np.take(grey, middle[through], axis=through), mm, order=1)
            for grey in greys
        )
        squares = np.indices(first.shape) // (SQUARE_MM * SCALE)
        plane = np.where(squares.sum(axis=0) % 2, first, second)
        planes.append(plane[::-1] if is_reversed else plane)
    height = max(len(plane) for plane in planes)
    row = np.hstack([np.pad(plane, ((0, height - len(plane)), (0, 4))) for plane in planes])
    return as_jpeg(Image.fromarray(to_grey(row)))


def picture_of(path: Path) -> str:
    """Return a picture file as a data URI."""
    with Image.open(path) as picture:
        return as_jpeg(picture.convert("RGB"))
