"""Measure how well brain masks fit: right ones, changed ones, and wrong ones.

Usage: python -m benchmarks.mask_fit FOLDER ...

The bounds in `msseg_jax/volumes/mask_fit.py` are based on these figures. A FOLDER is a pair in the
MSSEG-2 layout with a brain mask, or holds FLAIRs (*FLAIR*.nii.gz): skull-stripped ones, or whole
heads. Their mask is brain_mask.nii.gz, or else the brain is found as `msseg prepare` finds it. The
first table has one line per image with its own mask. The second one has one line per kind of mask,
over all images.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import io_orientation
from scipy import ndimage

from msseg_jax.prepare.images import is_set
from msseg_jax.prepare.scan import read_scan
from msseg_jax.prepare.visits import look_at
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02
from msseg_jax.volumes.mask_fit import find_misfit, measure_mask_fit
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.resampling import resampling_to
from msseg_jax.volumes.volume import Volume

SHIFTS_MM = (5, 10, 15, 20)
VARIANTS_MM = 2.0  # side of the voxels on which masks are changed, to save time
OTHERS = 4  # every fourth image gives its mask to another one
STRIPPED_SHARE = 0.5  # of the voxels; a skull-stripped image has more zeros than this
AXES = ("left-right", "front-back", "top-bottom")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="pairs, or FLAIRs")
    kinds, cases = defaultdict(list), []
    print(f"{'fit':>6}{'gain':>7}{'turned':>8}  image")
    for folder in parser.parse_args().folders:
        for image, brain in images_in(folder):
            found = measure_mask_fit(image.array, brain, image.affine)
            print(f"{found.fit:>6.2f}{found.gain:>7.3f}{found.turned_gain:>8.2f}  {image.path}")
            image, brain = on_voxels_of(VARIANTS_MM, image, brain)
            for kind, array, mask in variants(image, brain):
                kinds[kind].append(measure_mask_fit(array, mask, image.affine))
            cases.append((image, brain))
    for number, (image, own) in enumerate(cases):
        for other, brain in cases[number % OTHERS :: OTHERS]:
            if other.path.parent != image.path.parent:
                mask = brain_of_another(image, own, other, brain)
                kinds["another patient's, same centre"].append(
                    measure_mask_fit(image.array, mask, image.affine)
                )
    print(f"\n{'kind of mask':<34}{'masks':>6}{'gain: least':>13}{'5 %':>7}{'95 %':>7}{'most':>7}"
          f"{'warned':>8}{'refused':>9}")  # fmt: skip
    for kind, fits in kinds.items():
        gains = np.array([max(fit.gain, 0) for fit in fits if fit])
        found = [find_misfit("mask", {Path("image"): fit}) for fit in fits]
        refused = sum(misfit is not None and misfit.is_certain for misfit in found)
        warned = sum(misfit is not None for misfit in found) - refused
        figures = (gains.min(), *np.percentile(gains, (5, 95)), gains.max())
        print(f"{kind:<34}{len(gains):>6}{figures[0]:>13.3f}"
              + "".join(f"{figure:>7.3f}" for figure in figures[1:])
              + f"{warned:>8}{refused:>9}", flush=True)  # fmt: skip


def images_in(folder: Path) -> Iterator[tuple[Volume, np.ndarray]]:
    """Yield the images of a folder, each with its brain mask (D, H, W) bool."""
    if (folder / TIME01).is_file():
        brain = read_volume(folder / BRAIN_MASK).array > 0
        yield from ((read_volume(folder / name), brain) for name in (TIME01, TIME02))
        return
    for path in sorted(folder.glob("*FLAIR*.nii.gz")):
        image = read_volume(path)
        if (folder / BRAIN_MASK).is_file():
            yield image, read_volume(folder / BRAIN_MASK).array > 0
            continue
        if (image.array == 0).mean() > STRIPPED_SHARE:
            yield image, ndimage.binary_fill_holes(image.array > 0)
            continue
        try:
            yield image, is_set(look_at(read_scan(path)).brain)
        except InputError as error:
            print(f"left out: {error}"[:100])


def on_voxels_of(spacing_mm: float, image: Volume, brain: np.ndarray) -> tuple[Volume, np.ndarray]:
    """Return an image and its mask on voxels of at least this side."""
    resampling = resampling_to(spacing_mm, brain.shape, image.spacing_mm)
    width = np.maximum(1, spacing_mm / image.spacing_mm).astype(int)  # a mean over the new voxels
    coarse = resampling.forward(ndimage.uniform_filter(image.array, width.tolist()))
    affine = resampling.new_affine(image.affine)
    return replace(image, array=coarse, affine=affine), resampling.forward_labels(brain)


def variants(image: Volume, brain: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (kind, image, mask) of right, changed and wrong masks."""
    array, spacing_mm = image.array, image.spacing_mm
    stripped = array * brain
    yield "right", array, brain
    yield "right, skull-stripped with it", stripped, brain
    for mm in (2, 4):
        wider = ndimage.distance_transform_edt(~brain, spacing_mm) <= mm
        yield f"{mm} mm wider", array, wider
        depth_mm = ndimage.distance_transform_edt(np.pad(brain, 1), spacing_mm)
        narrower = depth_mm[1:-1, 1:-1, 1:-1] > mm
        yield f"{mm} mm narrower", array, narrower
    up = int(np.flatnonzero(io_orientation(image.affine)[:, 0] == 2)[0])
    low, high = (side for side in ndimage.find_objects(brain.astype(np.uint8))[0][up].indices(
        brain.shape[up])[:2])  # fmt: skip
    for part, cut in (
        ("one", slice(low, low + (high - low) // 4)),
        ("other", slice(high - (high - low) // 4, high)),
    ):
        mask = brain.copy()
        mask[(slice(None),) * up + (cut,)] = False
        yield f"without the quarter at {part} end", array, mask
    yield "only tissue, without fluid", array, brain & (array > 0.7 * np.median(array[brain]))
    ramp = np.linspace(0.4, 1.6, array.shape[0], dtype=np.float32)[:, None, None]
    yield "right, strong bias field", array * ramp, brain
    normal = (array - array[brain].mean()) / array[brain].std()
    yield "right, zero mean", normal, brain
    yield "right, zero mean and stripped", normal * brain, brain
    for mm in SHIFTS_MM:
        for axis in range(3):
            for way in (1, -1):
                mask = moved(brain, axis, way * round(mm / spacing_mm[axis]))
                if mask.sum() > 0.9 * brain.sum():
                    yield f"moved by {mm} mm", array, mask
                    yield f"moved by {mm} mm, stripped before", stripped, mask
    for axis, name in enumerate(AXES):
        along = int(np.flatnonzero(io_orientation(image.affine)[:, 0] == axis)[0])
        yield f"array flipped {name}", array, np.flip(brain, along)


def moved(mask: np.ndarray, axis: int, voxels: int) -> np.ndarray:
    """Return a mask that is moved along an axis."""
    result = np.zeros_like(mask)
    to, of = slice(max(voxels, 0), None), slice(max(-voxels, 0), None)
    length = mask.shape[axis] - abs(voxels)
    before = (slice(None),) * axis
    part = np.take(mask[(*before, of)], range(length), axis)
    result[(*before, slice(to.start, to.start + length))] = part
    return result


def brain_of_another(
    image: Volume, own: np.ndarray, other: Volume, brain: np.ndarray
) -> np.ndarray:
    """Resample another image's mask to an image, with the centres of both brains at one point."""
    centres = [
        apply_affine(one.affine, np.argwhere(mask).mean(axis=0))
        for one, mask in ((image, own), (other, brain))
    ]
    back = np.linalg.inv(other.affine)
    move = np.eye(4)
    move[:3, 3] = centres[1] - centres[0]
    matrix = back @ move @ image.affine
    return ndimage.affine_transform(
        brain.astype(np.uint8), matrix[:3, :3], matrix[:3, 3], image.array.shape, order=0
    ).astype(bool)


if __name__ == "__main__":
    main()
