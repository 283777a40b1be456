"""Measure how often the registration of two visits fails if the second is moved, cut and coarsened.

Usage: python -m benchmarks.registration TIME01 TIME02 [--count 100] [--seed 0]

First the original pair is registered. This result is the reference. Then the second visit is moved
by a random rotation (up to 30 degrees about any axis) and a random shift (up to 40 mm). A new scan
is simulated with slices of 4 mm, upright in the scanner. Up to a fifth of the field of view is cut
off at one end of each axis. The contrast is changed by a gamma of 0.7 to 1.4, and noise of up to
5 % of the brightest tissue is added. The correct transform is known from the motion.

A pair counts as misaligned if any point of the brain is more than 2 mm off. It counts as detected
if the registration or the measurement of the remaining motion raises an error. (`msseg prepare`
also refuses brains below 800 ml, which occur if a large part is out of view.)
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from msseg_jax.prepare.middle import bring_to_middle, check_match
from msseg_jax.prepare.registration import (
    centre_of,
    compose,
    corners_of,
    matrix_of,
    points_of,
    rigid,
)
from msseg_jax.prepare.scan import Scan, read_scan
from msseg_jax.prepare.visits import register_visits
from msseg_jax.system.errors import InputError
from msseg_jax.system.words import count_of

MOST_DEGREES, MOST_SHIFT_MM = 30.0, 40.0
SLICE_MM, PIXEL_MM = 4.0, 0.9
MOST_CUT = 0.2  # of the field of view along an axis
GAMMAS = (0.7, 1.4)
MOST_NOISE = 0.05  # of the brightest tissue
MISALIGNED_MM = 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("time01", type=Path)
    parser.add_argument("time02", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    first, second = read_scan(flags.time01), read_scan(flags.time02)
    known = register_visits((first, second))
    points = points_of(known.visits[0].brain)
    print(f"{'case':>5}{'turned':>8}{'moved':>8}{'mean mm':>9}{'max mm':>9}{'seconds':>9}  result")
    misaligned = undetected = refused = 0
    for number in range(flags.count):
        random = np.random.default_rng((flags.seed, number))
        motion, degrees, shift_mm = draw_motion(random, centre_of(known.visits[1].brain))
        moved = replace(
            second, image=simulate_scan(random, second.image, motion), digest=f"{number}"
        )
        expected = compose(motion, known.transform)
        start = time.perf_counter()
        off_mm, result = np.full(1, np.nan), register(first, moved)
        if isinstance(result, tuple):
            transform, result = result
            (a, b), (c, d) = matrix_of(transform), matrix_of(expected)
            off_mm = np.linalg.norm(points @ (a - c).T + b - d, axis=1)
        wrong = off_mm.max() > MISALIGNED_MM
        misaligned += wrong
        undetected += wrong and result == "ok"
        refused += result != "ok"
        print(
            f"{number:>5}{degrees:>8.1f}{shift_mm:>8.1f}{off_mm.mean():>9.2f}{off_mm.max():>9.2f}"
            f"{time.perf_counter() - start:>9.1f}  {result}", flush=True,
        )  # fmt: skip
    print(
        f"{count_of(flags.count, 'case')}: {misaligned} misaligned by more than "
        f"{MISALIGNED_MM:g} mm, of these {undetected} not detected; {refused} refused in total"
    )


def register(first: Scan, second: Scan):
    """Register two visits.

    Returns:
      (transform, "ok" or the error of the check). If there is no transform, only the error.
    """
    try:
        found = register_visits((first, second))
    except InputError as error:
        return f"refused: {error}"[-150:]
    try:
        check_match(bring_to_middle(found), "pair")
    except InputError as error:
        return found.transform, f"refused: {error}"[:150]
    return found.transform, "ok"


def draw_motion(
    random: np.random.Generator, centre: np.ndarray
) -> tuple[sitk.Transform, float, float]:
    """Draw a rigid motion about `centre` (mm). Return it, its angle (degrees) and shift (mm)."""
    axis, way = (v / np.linalg.norm(v) for v in random.normal(size=(2, 3)))
    degrees, shift_mm = random.uniform(0, (MOST_DEGREES, MOST_SHIFT_MM))
    turn = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    return rigid(turn, centre + shift_mm * way - turn @ centre), degrees, shift_mm


def simulate_scan(
    random: np.random.Generator, image: sitk.Image, motion: sitk.Transform
) -> sitk.Image:
    """Simulate another scan of the image after `motion`: float32."""
    corners = np.array([motion.TransformPoint(corner) for corner in corners_of(image).tolist()])
    # As in a real scan, the head is centred and the field of view keeps its size.
    spacing_mm = np.array([PIXEL_MM, PIXEL_MM, SLICE_MM])
    extent_mm = np.array(image.GetSize()) * np.array(image.GetSpacing())
    low = corners.mean(axis=0) - extent_mm / 2
    cut_mm = random.uniform(0, MOST_CUT, 3) * extent_mm
    low += np.where(random.random(3) < 0.5, cut_mm, 0)
    size = np.round((extent_mm - cut_mm) / spacing_mm).astype(int)
    scanned = sitk.Resample(
        sitk.SmoothingRecursiveGaussian(image, [0.4 * mm for mm in spacing_mm]),
        size.tolist(), motion.GetInverse(), sitk.sitkLinear, low.tolist(), spacing_mm.tolist(),
        np.eye(3).ravel().tolist(), 0.0, sitk.sitkFloat32,
    )  # fmt: skip
    array = sitk.GetArrayFromImage(scanned)
    peak = np.percentile(array[array > array.mean()], 98)
    array = peak * (np.maximum(array, 0) / peak) ** random.uniform(*GAMMAS)
    noise = random.uniform(0, MOST_NOISE) * peak * random.normal(size=(2, *array.shape))
    noisy = sitk.GetImageFromArray(np.hypot(array + noise[0], noise[1]).astype(np.float32))
    noisy.CopyInformation(scanned)
    return noisy


if __name__ == "__main__":
    main()
