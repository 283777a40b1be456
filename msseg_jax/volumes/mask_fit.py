"""Notice a brain mask that was made for another position of the head.

At the surface of the brain, tissue inside the mask is bright. Outside there is fluid, bone or air,
which is dark in a FLAIR and in most other contrasts. The fit of a mask is the correlation of
"inside or outside" with the brightness, over a layer on both sides of its surface. If the mask fits
much better after a shift, it lies in the wrong place. A mask that is only too wide or too narrow
fits better after shifts in opposite directions alike, so a shift counts by how much it is better
than the opposite one. Blocks of about 4 mm are enough. All shifts are tried at once, by Fourier
transforms.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import fft, ndimage

from msseg_jax.system.errors import InputError

BLOCK_MM = 4.0  # side of the blocks that are compared, approximately
LAYER_MM = 8.0  # thickness of the layers inside and outside of the surface
SHORTEST_MM, REACH_MM = 7.0, 28.0  # shortest shift, and the longest one along each axis
BRIGHTEST = 1.25  # of the median inside the mask; brighter voxels, such as fat, are clipped
LEAST_IN_VIEW = 0.6  # of the inner layer; other shifts are not considered
LEAST_ML = 100.0  # smaller masks are not judged
GOOD = 0.6  # a mask that fits this well is not turned over to find a better fit

# Bounds of the gain of the fit, chosen by this project. docs/explanation/preparation.md gives the
# values of real masks (`python -m benchmarks.mask_fit`).
DOUBTFUL_GAIN = 0.1
WRONG_GAIN = 0.2
TURNED_GAIN = 0.25
LEAST_FIT = 0.4  # after a shift or turn; if less, the mask has another fault, such as its width

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskFit:
    """The fit of a brain mask to an image, as it is and after the best shift or turn."""

    fit: float  # correlation, 1 at best
    gain: float  # by the best shift; 0 if the mask is where it belongs
    shift_mm: tuple[float, float, float]  # that shift: to the right, to the front, up (RAS)
    fit_there: float  # after that shift
    # By turning the mask over, with the best shift; negative if it fits worse, or was not tried.
    turned_gain: float
    turned_fit: float  # after that
    turned: tuple[bool, bool]  # whether that exchanges front and back, and top and bottom

    @property
    def is_turned(self) -> bool:
        """True if the mask fits well only when it is turned over."""
        return self.turned_gain >= TURNED_GAIN and self.turned_fit >= LEAST_FIT

    @property
    def is_wrong(self) -> bool:
        """True if the mask is certainly in the wrong place."""
        return self.is_turned or (self.gain >= WRONG_GAIN and self.fit_there >= LEAST_FIT)


@dataclass(frozen=True)
class Misfit:
    """A brain mask that does not fit, as a message."""

    message: str
    is_certain: bool  # if False, the message is only a warning


def find_misfit(mask: Path | str, fits: Mapping[Path, MaskFit | None]) -> Misfit | None:
    """Return what is wrong with the place of a brain mask, or None if nothing is known to be.

    Args:
      mask: names the mask in the message.
      fits: {image: how well the mask fits it}. A mask that fits one of them is right, because the
        other image may be the one that is out of place.
    """
    known = {image: fit for image, fit in fits.items() if fit is not None}
    if not known:
        return None
    image, fit = min(known.items(), key=lambda item: (item[1].is_wrong, item[1].gain))
    if not fit.is_wrong and fit.gain < DOUBTFUL_GAIN:
        return None
    if fit.is_turned:
        ends = [name for name, is_so in zip(("front and back", "top and bottom"), fit.turned,
                strict=True) if is_so]  # fmt: skip
        better = f"if {' and if '.join(ends)} are exchanged"
    else:
        better = (
            f"if it is moved by {_in_words(fit.shift_mm)} (fit {fit.fit_there:.2f} instead of "
            f"{fit.fit:.2f})"
        )
    said = "does not fit" if fit.is_wrong else "may not fit"
    much = "much better" if fit.is_wrong else "better"
    message = (
        f"{mask}: the brain mask {said} the head in {image}. It fits {much} {better}. Expected a "
        "mask that was made from this image. Look at both, and check the geometry in their headers."
    )
    return Misfit(message, fit.is_wrong)


def heed_misfit(mask: Path | str, fits: Mapping[Path, MaskFit | None]) -> tuple[str, ...]:
    """Return and log a warning if it is in doubt that a brain mask lies where the brain is.

    Args:
      mask, fits: as for `find_misfit`.

    Raises:
      InputError: It lies elsewhere.
    """
    misfit = find_misfit(mask, fits)
    if misfit is None:
        return ()
    if misfit.is_certain:
        raise InputError(misfit.message)
    logger.warning("%s", misfit.message)
    return (misfit.message,)


def _in_words(shift_mm: tuple[float, float, float]) -> str:
    """Describe a shift, for example as "15 mm to the left and 8 mm up"."""
    ways = (("to the right", "to the left"), ("to the front", "to the back"), ("up", "down"))
    # The smallest parts are due to the grid of the search.
    least_mm = max(np.abs(shift_mm)) / 3
    parts = [
        f"{abs(mm):.0f} mm {way[mm < 0]}"
        for mm, way in zip(shift_mm, ways, strict=True)
        if abs(mm) >= least_mm
    ]
    return " and ".join(parts)


def measure_mask_fit(image: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> MaskFit | None:
    """Measure how well a brain mask fits an image.

    Args:
      image: (D, H, W). Voxels of exactly 0 count as dark, also if others are negative.
      brain: (D, H, W) bool.
      affine: (4, 4), voxel indices to scanner mm (RAS).

    Returns:
      None if the mask is too small, or as bright as the darkest voxels.
    """
    spacing_mm = voxel_sizes(affine)
    factors = np.maximum(1, np.rint(BLOCK_MM / spacing_mm)).astype(int)
    spacing_mm = spacing_mm * factors
    inside = _block_means(brain, factors) >= 0.5
    if inside.sum() * spacing_mm.prod() < 1000 * LEAST_ML:
        return None
    relative = _relative_brightness(_block_means(image, factors), inside)
    if relative is None:
        return None
    reach = (REACH_MM / spacing_mm).astype(int)  # in blocks
    layers = _Layers(relative, spacing_mm, reach)
    fits = layers.fits(inside)
    here = float(fits[tuple(reach)])
    opposite = fits[::-1, ::-1, ::-1]
    gains = fits - np.maximum(opposite, here)
    shifts_mm = [(np.arange(2 * n + 1) - n) * mm for n, mm in zip(reach, spacing_mm, strict=True)]
    lengths_mm = np.linalg.norm(np.stack(np.meshgrid(*shifts_mm, indexing="ij")), axis=0)
    gains[(lengths_mm > 0) & (lengths_mm < SHORTEST_MM)] = -1  # the grid is too coarse for these
    best = np.unravel_index(gains.argmax(), gains.shape)
    axes = affine[:3, :3] / voxel_sizes(affine)
    x, y, z = (axes @ ((np.array(best) - reach) * spacing_mm)).tolist()
    turned_gain, turned_fit, turned = -1.0, -1.0, (False, False)
    if fits.max() < GOOD:
        ways = [(True, False), (False, True), (True, True)]
        nearest = np.abs(axes[1:]).argmax(axis=1)  # the axes of the array towards front and top
        found = [layers.fits(_turned(inside, nearest[list(way)])).max() for way in ways]
        turned_fit = float(max(found))
        turned_gain = turned_fit - float(fits.max())
        turned = ways[int(np.argmax(found))]
    shift_mm, there = (x, y, z), float(fits[best])
    return MaskFit(here, float(gains[best]), shift_mm, there, turned_gain, turned_fit, turned)


class _Layers:
    """Measures the fit of masks to one image, at all shifts."""

    def __init__(self, relative: np.ndarray, spacing_mm: np.ndarray, reach: np.ndarray):
        self._spacing_mm, self._reach = spacing_mm, reach
        # Padded, so that a layer may leave the field of view. What lies there is not counted.
        self._margin = np.ceil(LAYER_MM / spacing_mm).astype(int) + 1
        self._shape = [
            fft.next_fast_len(int(n), real=True)
            for n in relative.shape + 2 * (self._margin + reach)
        ]
        widths = [(n, n) for n in self._margin + reach]
        self._images = [
            self._transformed(np.pad(image, widths))
            for image in (np.ones_like(relative), relative, relative**2)
        ]

    def fits(self, inside: np.ndarray) -> np.ndarray:
        """Return the fit at each shift, (2 reach + 1) along each axis; -1 if it is out of view."""
        inside = np.pad(inside, [(n, n) for n in self._margin])
        inner = inside & (ndimage.distance_transform_edt(inside, self._spacing_mm) <= LAYER_MM)
        outer = ~inside & (ndimage.distance_transform_edt(~inside, self._spacing_mm) <= LAYER_MM)
        inner_count, inner_sum, inner_squares = self._sums(inner)
        outer_count, outer_sum, outer_squares = self._sums(outer)
        inner_count, outer_count = np.maximum(inner_count, 1), np.maximum(outer_count, 1)
        count = inner_count + outer_count
        mean = (inner_sum + outer_sum) / count
        variance = (inner_squares + outer_squares) / count - mean**2
        difference = inner_sum / inner_count - outer_sum / outer_count
        # The correlation of a binary variable with another (point-biserial).
        fit = difference * np.sqrt(inner_count * outer_count) / count
        fit /= np.sqrt(np.maximum(variance, 1e-6))
        in_view = (inner_count >= LEAST_IN_VIEW * inner.sum()) & (outer_count > 1)
        return np.where(in_view, fit, -1.0)

    def _sums(self, layer: np.ndarray) -> list[np.ndarray]:
        """Return, for each shift of a layer: its voxels in view, their sum and that of squares."""
        kernel = np.conj(self._transformed(np.pad(layer, [(n, n) for n in self._reach])))
        shifts = np.ix_(*(np.arange(-n, n + 1) for n in self._reach))
        return [fft.irfftn(image * kernel, self._shape)[shifts] for image in self._images]

    def _transformed(self, array: np.ndarray) -> np.ndarray:
        spectrum: np.ndarray = fft.rfftn(array.astype(np.float32), self._shape)
        return spectrum


def _block_means(array: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return the means of blocks of voxels. Those at the end of an axis may be smaller."""
    for axis, factor in enumerate(factors):
        starts = np.arange(0, array.shape[axis], factor)
        sums = np.add.reduceat(array, starts, axis=axis, dtype=np.float32)
        counts = np.diff(np.append(starts, array.shape[axis]))
        array = sums / np.expand_dims(counts, [k for k in range(3) if k != axis])
    return array.astype(np.float32)


def _relative_brightness(image: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """Return the brightness relative to the median inside the mask, from 0 to BRIGHTEST."""
    is_empty = image == 0
    level = 0.0
    if image.min() < 0:  # the intensities have no natural zero
        level = float(np.percentile(image[~is_empty], 1))
    median = float(np.median(image[inside]))
    if not median > level:
        return None
    relative = np.clip((image - level) / (median - level), 0, BRIGHTEST)
    return np.where(is_empty, 0, relative).astype(np.float32)


def _turned(inside: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Flip a mask within its bounding box."""
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    turned = np.zeros_like(inside)
    turned[box] = np.flip(inside[box], tuple(axes.tolist()))
    return turned
