"""Paint a lesion into an image, with its brightness and its partial volume."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.plan import BORDER_DEVIATIONS, PaintedLesion
from msseg_jax.simulate.synthetic.source import Source

FINE_MM = 0.8  # side of the sub-voxels that are averaged to get the partial volume of a voxel
# Relative to the brain's median. Fluid below FLUID does not become brighter, tissue above TISSUE
# does; in between, the effect increases linearly.
FLUID, TISSUE = 0.45, 0.75
BRIGHT = 1.3  # relative to the brain's median; brighter voxels may already be a lesion
KEPT = 0.5  # share of the texture of the tissue that stays visible in a lesion
TEXTURE, TEXTURE_MM = 0.15, 2.0  # standard deviation and smoothness of the lesion's own texture
# Minimum contrast at the brightest voxel, for each visit in which the lesion is present. A fainter
# lesion would not be visible, and a persistent one would then look new.
LEAST_SEEN = 0.08


@dataclass(frozen=True)
class Placed:
    """A lesion placed in an image."""

    lesion: PaintedLesion
    box: tuple[slice, slice, slice]  # part of the image that the arrays below cover
    shares: tuple[np.ndarray, np.ndarray]  # per visit: (d, h, w) float32, share of each voxel
    brightness: np.ndarray  # (d, h, w) float32, intensity before the contrast is applied
    texture: np.ndarray  # (d, h, w) float32, factor on the contrast


def place(
    lesion: PaintedLesion, source: Source, image: np.ndarray, taken: np.ndarray
) -> Placed | None:
    """Place a lesion in an image. Return None if it cannot be at its position.

    The lesion must lie in tissue inside the brain, must not overlap another lesion, and must be
    visible in every visit in which it is present.

    Args:
      lesion: the lesion, with its position in MNI space.
      source: the scan, with its brain and its registration to MNI space.
      image: (D, H, W) float32, the visit in which the lesion is most visible.
      taken: (D, H, W) bool, voxels of other lesions.
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


def paint(image: np.ndarray, placed: Placed, visit: int, factor: float = 1.0) -> None:
    """Paint a lesion into the image (D, H, W) of a visit (0 or 1), in place.

    Args:
      factor: factor on the contrast of all lesions, by which the protocol of the visit differs.
    """
    contrast = factor * placed.lesion.contrasts[visit]
    if not contrast:
        return
    share, here = placed.shares[visit], image[placed.box]
    bright = placed.brightness * (1 + contrast * placed.texture)
    # A lesion never makes a voxel darker.
    image[placed.box] = here + share * np.maximum(bright - here, 0)


def _box(lesion: PaintedLesion, to_image: np.ndarray, shape: tuple) -> tuple | None:
    """Return the box of voxels around a lesion, with a margin of 4 mm of tissue.

    Return None if the box overlaps the image by two voxels or less along an axis.
    """
    centre = nib.affines.apply_affine(to_image, lesion.centre_mm)
    # Half the side lengths of the bounding box of a transformed unit ball are the row norms.
    reach = (lesion.reach_mm + 4) * np.linalg.norm(to_image[:3, :3], axis=1)
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
    if (high <= 2).any() or (low >= np.array(shape) - 2).any():
        return None
    return tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, shape, strict=True))


def _share(lesion: PaintedLesion, size: float, source: Source, box: tuple) -> np.ndarray:
    """Return the share of each voxel of a box that the lesion fills: float32, 0 to 1."""
    parts = np.maximum(np.rint(source.spacing_mm / FINE_MM), 1).astype(int)
    shape_mm = np.linalg.norm(size * lesion.matrix @ lesion.shape.to_mm, axis=0)
    sigma = lesion.border_mm / shape_mm
    margin = np.ceil(BORDER_DEVIATIONS * sigma).astype(int)
    soft = ndimage.gaussian_filter(np.pad(lesion.shape.mask, [(n, n) for n in margin]), sigma)
    soft /= soft.max()  # smoothing lowers the maximum of a small lesion below 1

    # Map voxel indices to MNI mm about the lesion's centre, then to shape mm, then to voxels of
    # `soft`.
    to_mni = source.to_mni @ source.affine
    to_shape = np.linalg.inv(size * lesion.matrix @ lesion.shape.to_mm)
    matrix = to_shape @ to_mni[:3, :3]
    shift = to_shape @ (to_mni[:3, 3] - lesion.centre_mm) + lesion.shape.middle + margin

    sides = [side.stop - side.start for side in box]
    start = np.array([side.start for side in box])
    # Sample on a finer grid with the same field of view, then average the sub-voxels of each voxel.
    fine = [n * p for n, p in zip(sides, parts, strict=True)]
    first = start + (1 / parts - 1) / 2
    values = ndimage.affine_transform(
        soft, matrix / parts, matrix @ first + shift, output_shape=fine, order=1, output=np.float32
    )
    d, h, w = sides
    i, j, k = parts
    return values.reshape(d, i, h, j, w, k).mean(axis=(1, 3, 5))
