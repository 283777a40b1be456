"""A lesion in an image: where it is, how bright, and what of a thick slice it fills."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.plan import BORDER_DEVIATIONS, PaintedLesion
from msseg_jax.simulate.synthetic.source import Source

FINE_MM = 0.8  # a voxel's side is seen as so many parts, so that slices are filled in part
FLUID, TISSUE = 0.45, 0.75  # of the brain's median: fluid does not light up, tissue does
BRIGHT = 1.3  # from here on there is a lesion, or what looks like one
KEPT = 0.5  # of the tissue's own texture is seen through a lesion
TEXTURE, TEXTURE_MM = 0.15, 2.0  # how uneven a lesion is
# Contrast where it is brightest, at each visit at which it is there: less is seen by nobody, and a
# lesion that persists would look new.
LEAST_SEEN = 0.08


@dataclass(frozen=True)
class Placed:
    """A lesion that has found its place in an image."""

    lesion: PaintedLesion
    box: tuple[slice, slice, slice]
    shares: tuple[np.ndarray, np.ndarray]  # by visit: (d, h, w) float32, how much of each voxel
    brightness: np.ndarray  # (d, h, w) float32, what it would be in the whole of a voxel, less c
    texture: np.ndarray  # (d, h, w) float32, factor on the contrast


def place(
    lesion: PaintedLesion, source: Source, image: np.ndarray, taken: np.ndarray
) -> Placed | None:
    """Where a lesion would lie in an image; None where it cannot be.

    It can be in tissue, inside the brain, where no other is, and where it will be seen at every
    visit at which it is there.

    Args:
      image: (D, H, W) float32, of the visit in which it is seen best.
      taken: (D, H, W) bool, voxels of lesions.
    """
    to_image = np.linalg.inv(source.to_mni @ source.affine)  # MNI mm to voxels
    box = _box(lesion, to_image, image.shape)
    if box is None:
        return None
    here = image[box]
    tissue = np.clip((here - FLUID) / (TISSUE - FLUID), 0, 1)
    first, second = (_share(lesion, size, source, box) for size in lesion.sizes)
    whole = np.maximum(first, second)
    inside = whole > 0.25
    if not inside.any():
        return None
    in_brain = source.brain[box]
    if (
        in_brain[inside].mean() < 0.98
        or taken[box][inside].any()
        or tissue[inside].mean() < 0.6
        or (here[inside] > BRIGHT).mean() > 0.2
    ):
        return None
    around = (whole < 0.05) & in_brain & (here > TISSUE) & (here < BRIGHT)
    if around.sum() < 20:
        return None
    reference = np.median(here[around])
    shares = (first * tissue, second * tissue)
    seen = [c * s.max() for c, s in zip(lesion.contrasts, shares, strict=True) if c]
    if min(seen) < LEAST_SEEN:
        return None
    rng = np.random.default_rng(lesion.texture_seed)
    sigma = TEXTURE_MM / source.spacing_mm
    noise = ndimage.gaussian_filter(rng.standard_normal(here.shape).astype(np.float32), sigma)
    texture = 1 + TEXTURE * noise / max(float(noise.std()), 1e-6)
    brightness = reference + KEPT * (here - reference)
    return Placed(lesion, box, shares, brightness, texture)


def paint(image: np.ndarray, placed: Placed, visit: int) -> None:
    """Paint a lesion as it is at a visit (0 or 1) into (D, H, W), in place."""
    contrast = placed.lesion.contrasts[visit]
    if not contrast:
        return
    share, here = placed.shares[visit], image[placed.box]
    bright = placed.brightness * (1 + contrast * placed.texture)
    # Never darker than what is there.
    image[placed.box] = here + share * np.maximum(bright - here, 0)


def _box(lesion: PaintedLesion, to_image: np.ndarray, shape: tuple) -> tuple | None:
    """The voxels near a lesion, with some tissue around it; None where it leaves the image."""
    centre = nib.affines.apply_affine(to_image, lesion.centre_mm)
    # Half the sides of the box around the image of a ball: the rows' lengths.
    reach = (lesion.reach_mm + 4) * np.linalg.norm(to_image[:3, :3], axis=1)
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
    if (high <= 2).any() or (low >= np.array(shape) - 2).any():
        return None
    return tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, shape, strict=True))


def _share(lesion: PaintedLesion, size: float, source: Source, box: tuple) -> np.ndarray:
    """How much of each voxel of a box the lesion fills: float32, 0 to 1."""
    parts = np.maximum(np.rint(source.spacing_mm / FINE_MM), 1).astype(int)
    shape_mm = np.linalg.norm(size * lesion.matrix @ lesion.shape.to_mm, axis=0)
    sigma = lesion.border_mm / shape_mm
    margin = np.ceil(BORDER_DEVIATIONS * sigma).astype(int)
    soft = ndimage.gaussian_filter(np.pad(lesion.shape.mask, [(n, n) for n in margin]), sigma)
    soft /= soft.max()  # a small one would else fade into its border

    # Voxel indices to MNI mm about its centre, to the shape's mm, to the voxels of `soft`.
    to_mni = source.to_mni @ source.affine
    to_shape = np.linalg.inv(size * lesion.matrix @ lesion.shape.to_mm)
    matrix = to_shape @ to_mni[:3, :3]
    shift = to_shape @ (to_mni[:3, 3] - lesion.centre_mm) + lesion.shape.middle + margin

    sides = [side.stop - side.start for side in box]
    start = np.array([side.start for side in box])
    # On a finer grid with the same field of view, then the mean of the parts of each voxel.
    fine = [n * p for n, p in zip(sides, parts, strict=True)]
    first = start + (1 / parts - 1) / 2
    values = ndimage.affine_transform(
        soft, matrix / parts, matrix @ first + shift, output_shape=fine, order=1, output=np.float32
    )
    d, h, w = sides
    i, j, k = parts
    return values.reshape(d, i, h, j, w, k).mean(axis=(1, 3, 5))
