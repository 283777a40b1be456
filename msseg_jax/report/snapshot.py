"""Draw one slice of a pair as one picture, with outlines of the reference and the prediction."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from msseg_jax.report.grey import brightness, to_grey
from msseg_jax.report.slices import outline_edges
from msseg_jax.volumes.axial_view import EDGES, AxialView

LEAST_HEIGHT = 640  # pixels, minimum height of a slice
COLOURS = {"reference": "#56b4e9", "prediction": "#e69f00"}  # as in templates/style.css
LINE = 2  # pixels, width of an outline
HALO_LIGHT = 0.4  # factor that darkens the grey values next to a line
DASH, PERIOD = 8, 12  # pixels, of the dashed line of the reference
LETTERS = 18  # pixels, font size
BAR = 60  # pixels, height of the two lines of text above a visit
FRAME = 28  # pixels around a slice
GAP = 8  # pixels between the visits


@dataclass(frozen=True)
class Snapshot:
    """A picture of one patient."""

    patient: str
    pixels: np.ndarray  # (rows, columns, 3) uint8: red, green, blue


def draw_snapshot(
    patient: str,
    affine: np.ndarray,
    visits: np.ndarray,
    brain: np.ndarray,
    reference: np.ndarray,
    prediction: np.ndarray,
) -> Snapshot:
    """Draw both visits side by side in one slice, with the outlines of the lesions on the second.

    The slice and its grey values depend only on the visits, the brain and the reference. So all
    pictures of a training are the same except for the prediction.

    Args:
      affine: (4, 4), voxel indices to scanner mm; the voxels must be cubes.
      visits: (2, D, H, W), the first and the second, cropped to the brain.
      brain, reference, prediction: (D, H, W) bool.
    """
    view = AxialView.of(affine, brain.shape)
    masks = {"reference": view(reference), "prediction": view(prediction)}
    brain = view(brain)
    number = choose_slice(masks["reference"], brain)
    scale = -(-LEAST_HEIGHT // brain.shape[1])  # an integer, so that edges fall on pixels
    first, second = (_enlarge(_grey(view(visit), brain, number), scale) for visit in visits)
    second = _with_outlines(second, {kind: mask[number] for kind, mask in masks.items()}, scale)
    first, second = _framed(first), _framed(second)

    width, height = first.size
    whole = Image.new("RGB", (2 * width + GAP, BAR + height))
    whole.paste(first, (0, BAR))
    whole.paste(second, (width + GAP, BAR))
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    volumes = [
        (f"{kind} {mask.sum() * voxel_mm3:.0f} mm3", COLOURS[kind]) for kind, mask in masks.items()
    ]
    white = "#ffffff"
    place = f"axial slice at z = {view.height_mm(number):.1f} mm"
    _write(whole, 0, [(f"{patient}, first visit", white)], [(place, white)])
    _write(whole, width + GAP, [("second visit; new lesions in the whole brain:", white)], volumes)
    return Snapshot(patient, np.asarray(whole))


def choose_slice(reference: np.ndarray, brain: np.ndarray) -> int:
    """Choose the slice with most of the reference, or at half the brain's height if it is empty.

    Args:
      reference, brain: (slices, rows, columns) bool.
    """
    areas = reference.sum(axis=(1, 2))
    if areas.any():
        return int(areas.argmax())
    return int(np.quantile(np.flatnonzero(brain.any(axis=(1, 2))), 0.5, method="nearest"))


def _grey(visit: np.ndarray, brain: np.ndarray, number: int) -> np.ndarray:
    """Return a slice in grey values, black outside the brain.

    Normalised images are 0 outside the brain, which would be drawn in grey.
    """
    return to_grey(np.where(brain[number], brightness(visit, brain)[number], 0))


def _enlarge(grey: np.ndarray, scale: int) -> Image.Image:
    rows, columns = grey.shape
    size = columns * scale, rows * scale
    return Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")


def _with_outlines(picture: Image.Image, masks: dict[str, np.ndarray], scale: int) -> Image.Image:
    """Draw the outlines of masks (rows, columns) on a picture, as in the HTML reports."""
    pixels = np.array(picture)
    lines = {kind: _lines(picture.size, mask, LINE, scale) for kind, mask in masks.items()}
    for mask in masks.values():
        halo = _lines(picture.size, mask, LINE + 2, scale)
        pixels[halo] = pixels[halo] * HALO_LIGHT
    # The reference is dashed and drawn last, so that both are visible where they coincide.
    row, column = np.indices(pixels.shape[:2])
    dashes = (row + column) % PERIOD < DASH
    pixels[lines["prediction"]] = ImageColor.getrgb(COLOURS["prediction"])
    pixels[lines["reference"] & dashes] = ImageColor.getrgb(COLOURS["reference"])
    return Image.fromarray(pixels)


def _lines(size: tuple[int, int], mask: np.ndarray, width: int, scale: int) -> np.ndarray:
    """Return the outline of a mask as a mask of pixels, for a picture of `size`: bool."""
    image = Image.new("1", size)
    draw, half = ImageDraw.Draw(image), width // 2
    for left, top, right, bottom in scale * np.array(outline_edges(mask)).reshape(-1, 4):
        # Boxes, because lines would leave the corners open.
        draw.rectangle((left - half, top - half, right + half - 1, bottom + half - 1), 1)
    return np.asarray(image)


def _framed(picture: Image.Image) -> Image.Image:
    """Add a black frame to a picture, with letters for the patient's sides."""
    framed = ImageOps.expand(picture, FRAME)
    width, height = framed.size
    middle = FRAME / 2
    places = {
        "left": (middle, height / 2),
        "right": (width - middle, height / 2),
        "top": (width / 2, middle),
        "bottom": (width / 2, height - middle),
    }
    draw, font = ImageDraw.Draw(framed), ImageFont.load_default(LETTERS)
    for edge, place in places.items():
        draw.text(place, EDGES[edge], "#ffffff", font, anchor="mm")
    return framed


def _write(picture: Image.Image, left: int, *rows: list[tuple[str, str]]) -> None:
    """Write rows of (text, colour) above the visit that begins at column `left`."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(LETTERS)
    for number, row in enumerate(rows):
        column = float(left + GAP)
        for text, colour in row:
            draw.text((column, (number + 0.5) * BAR / len(rows)), text, colour, font, anchor="lm")
            column += draw.textlength(text + "    ", font)
