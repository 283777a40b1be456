"""Register images with SimpleITK's optimisers.

The images may be far apart at the start. The result is accurate to about a tenth of a voxel.

A transform maps points of the fixed image to points of the moving image, in scanner mm (LPS, ITK's
axes). `sitk.Resample(moving, fixed, transform)` expects this direction.
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from msseg_jax.prepare.threads import at_once

SEARCH_MM, PROBE_MM = 8.0, 4.0  # voxel sides of the coarse search, and to compare its best results
START_DEGREES = (-25.0, 0.0, 25.0)  # about each axis; a descent covers half the gap to the next
SEARCH_STEPS, PROBE_STEPS, FINE_STEPS = 30, 60, 100
FIRST_STEP_SHARE = 0.5  # of a voxel, first step of the search
BEST_OF_SEARCH = 4  # number of results of the search that are refined on the finer grid
LEAST_OVERLAP = 0.4  # of the fixed mask; with less overlap, a few voxels may match by chance
FINE_STEP_MM = 0.2  # a longer first step makes the affine optimisation diverge
LAST_STEP_SHARE = 0.005  # of the first step; a descent ends when its steps are shorter
HISTOGRAM_BINS = 32  # for mutual information


# --------------------------------------------------------------------------------------- images


def isotropic(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Resample an image to cubic voxels over the same field of view.

    Axes along which this is coarser are smoothed first.
    """
    # Sigma is 0.4 of the new voxel. Without smoothing, finer structures would cause aliasing.
    sigma_mm = np.where(np.array(image.GetSpacing()) < spacing_mm, 0.4 * spacing_mm, 1e-3)
    return regrid(sitk.SmoothingRecursiveGaussian(image, sigma_mm.tolist()), np.full(3, spacing_mm))


def regrid(image: sitk.Image, spacing_mm: np.ndarray) -> sitk.Image:
    """Resample to voxels of (3,) mm over the same field of view, linearly interpolated: float32."""
    old_mm = np.array(image.GetSpacing())
    shape = np.ceil(np.array(image.GetSize()) * old_mm / spacing_mm - 1e-6).astype(int)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(image.GetOrigin()) + direction @ ((spacing_mm - old_mm) / 2)
    return sitk.Resample(
        image, shape.tolist(), sitk.Transform(), sitk.sitkLinear, origin.tolist(),
        spacing_mm.tolist(), image.GetDirection(), 0.0, sitk.sitkFloat32,
    )  # fmt: skip


def on_grid(
    mask: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None = None
) -> sitk.Image:
    """Resample a mask to another grid, by the nearest voxel, 0 outside its own grid: uint8."""
    return sitk.Resample(
        mask, grid, transform or sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8
    )


def centre_of(mask: sitk.Image) -> np.ndarray:
    """Return the mean point of a mask, (3,) mm."""
    inside = sitk.GetArrayViewFromImage(mask) != 0
    # The number of voxels in each plane is enough. A list of all voxels would need much memory.
    planes = [np.count_nonzero(inside, axis=other) for other in ((0, 1), (0, 2), (1, 2))]
    index = [float(np.arange(plane.size) @ plane / plane.sum()) for plane in planes]  # x, y, z
    return np.array(mask.TransformContinuousIndexToPhysicalPoint(index))


def points_of(mask: sitk.Image, most: int = 20_000) -> np.ndarray:
    """Return about `most` evenly spaced voxels of a mask, as points: (N, 3) mm."""
    indices = np.argwhere(sitk.GetArrayFromImage(mask))[:, ::-1]
    indices = indices[:: max(1, len(indices) // most)]
    direction = np.array(mask.GetDirection()).reshape(3, 3)
    return indices * np.array(mask.GetSpacing()) @ direction.T + np.array(mask.GetOrigin())


def correlation(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, transform: sitk.Transform
) -> float:
    """Measure the normalised cross-correlation inside a mask, where both images have data.

    Args:
      mask: on the grid of the fixed image.

    Returns:
      The correlation, or NaN if there are fewer than 100 voxels to compare.
    """
    inside = sitk.GetArrayViewFromImage(mask) > 0
    inside &= sitk.GetArrayFromImage(coverage(moving, fixed, transform)) > 0
    if inside.sum() < 100:
        return math.nan
    there = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)
    a = sitk.GetArrayViewFromImage(fixed)[inside]
    b = sitk.GetArrayViewFromImage(there)[inside]
    return float(np.corrcoef(a, b)[0, 1])


def corners_of(image: sitk.Image) -> np.ndarray:
    """Return the outer corners of a field of view: (8, 3) mm."""
    ends = np.meshgrid(*[(-0.5, size - 0.5) for size in image.GetSize()])
    indices = np.stack(ends, axis=-1).reshape(8, 3).tolist()
    return np.array([image.TransformContinuousIndexToPhysicalPoint(index) for index in indices])


def coverage(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Mark the voxels of a grid that `transform` maps into the image's field of view: uint8."""
    field = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    field.CopyInformation(image)
    return on_grid(field, grid, transform)


# ----------------------------------------------------------------------------------- transforms


def rigid(rotation: np.ndarray, shift: np.ndarray) -> sitk.AffineTransform:
    """Return the transform x -> rotation @ x + shift."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(np.asarray(rotation, float).ravel().tolist())
    transform.SetTranslation(np.asarray(shift, float).ravel().tolist())
    return transform


def matrix_of(transform: sitk.Transform) -> tuple[np.ndarray, np.ndarray]:
    """Return (A, b) of a linear transform x -> A @ x + b."""
    shift = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - shift for axis in np.eye(3)]
    return np.stack(columns, axis=1), shift


def compose(outer: sitk.Transform, inner: sitk.Transform) -> sitk.AffineTransform:
    """Return the transform x -> outer(inner(x)) of two linear transforms."""
    (a, b), (c, d) = matrix_of(outer), matrix_of(inner)
    return rigid(a @ c, a @ d + b)


def half_of(transform: sitk.Transform) -> sitk.AffineTransform:
    """Return the rigid transform that gives `transform`, also rigid, when it is applied twice."""
    matrix, shift = matrix_of(transform)
    half = Rotation.from_rotvec(Rotation.from_matrix(matrix).as_rotvec() / 2).as_matrix()
    # The shift s of the half solves half @ s + s = shift. The sum half + I is invertible, because
    # half rotates by at most 90 degrees.
    return rigid(half, np.linalg.solve(half + np.eye(3), shift))


def nearest_rigid(transform: sitk.Transform, centre: np.ndarray) -> sitk.Euler3DTransform:
    """Return the rigid transform nearest to a linear one.

    It moves `centre` to the same point. Its rotation is the nearest one (polar decomposition).
    """
    matrix, _ = matrix_of(transform)
    u, _, v = np.linalg.svd(matrix)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
    there = np.array(transform.TransformPoint(centre.tolist()))
    result = sitk.Euler3DTransform()
    result.SetCenter(centre.tolist())
    result.SetMatrix(turn.ravel().tolist(), 1e-6)
    result.SetTranslation((there - centre).tolist())
    return result


def motion_of(transform: sitk.Transform, centre: np.ndarray) -> tuple[float, float]:
    """Measure by how much a rigid transform rotates (degrees) and moves `centre` (mm)."""
    matrix, _ = matrix_of(transform)
    moved = np.array(transform.TransformPoint(centre.tolist())) - centre
    turned = Rotation.from_matrix(matrix).magnitude()
    return float(np.degrees(turned)), float(np.linalg.norm(moved))


# ----------------------------------------------------------------------------------- optimisers


def descend(
    fixed: sitk.Image,
    moving: sitk.Image,
    transform: sitk.Transform,
    steps: int,
    step_mm: float,
    mask: sitk.Image,
    information: bool = False,
) -> float:
    """Optimise `transform` in-place by regular-step gradient descent.

    Args:
      mask: voxels to compare, on the grid of the fixed image.
      information: Compare by Mattes' mutual information, which allows for different contrasts. If
        False, compare by correlation.

    Returns:
      The final similarity. Higher is better. Values of calls on the same images are comparable.

    Raises:
      RuntimeError: The images do not overlap (raised by ITK).
    """
    method = sitk.ImageRegistrationMethod()
    if information:
        method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    else:
        method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=step_mm, minStep=step_mm * LAST_STEP_SHARE, numberOfIterations=steps,
        relaxationFactor=0.5, gradientMagnitudeTolerance=1e-8,
    )  # fmt: skip
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return -method.GetMetricValue()


def search(
    fixed: sitk.Image,
    moving: sitk.Image,
    mask: sitk.Image,
    centre: np.ndarray,
    shifts: list[np.ndarray],
    more: Sequence[sitk.Transform] = (),
) -> sitk.Euler3DTransform:
    """Find the rigid transform with the best correlation from many starts, to within a few mm.

    Args:
      mask: voxels of the fixed image to compare, on any grid.
      centre: centre of the rotations, (3,) mm, in the fixed image.
      shifts: possible displacements of the centre. Each is tried with every rotation.
      more: further starts, which are tried unchanged.

    Raises:
      RuntimeError: The images do not overlap enough from any start.
    """
    starts = [nearest_rigid(start, centre) for start in more]
    for shift, angles in itertools.product(shifts, itertools.product(START_DEGREES, repeat=3)):
        turns = np.radians(angles).tolist()
        starts.append(sitk.Euler3DTransform(centre.tolist(), *turns, shift.tolist()))
    found = _best(fixed, moving, mask, starts, SEARCH_MM, SEARCH_STEPS)[:BEST_OF_SEARCH]
    found = _best(fixed, moving, mask, found, PROBE_MM, PROBE_STEPS)
    if not found:
        raise RuntimeError("the images do not overlap from any start")
    return found[0]


def _best(
    fixed: sitk.Image,
    moving: sitk.Image,
    mask: sitk.Image,
    starts: list[sitk.Euler3DTransform],
    spacing_mm: float,
    steps: int,
) -> list[sitk.Euler3DTransform]:
    """Optimise each start, and return the results, best first.

    Results with too little overlap are left out.
    """
    fixed, moving = isotropic(fixed, spacing_mm), isotropic(moving, spacing_mm)
    mask = on_grid(mask, fixed)
    least_voxels = LEAST_OVERLAP * sitk.GetArrayFromImage(mask).sum()

    def follow(start: sitk.Euler3DTransform) -> tuple[float, sitk.Euler3DTransform] | None:
        transform = sitk.Euler3DTransform(start)
        step_mm = FIRST_STEP_SHARE * spacing_mm
        try:
            similarity = descend(fixed, moving, transform, steps, step_mm, mask)
        except RuntimeError:  # no overlap from this start
            return None
        covered = sitk.GetArrayFromImage(coverage(moving, fixed, transform) & mask).sum()
        return (similarity, transform) if covered >= least_voxels else None

    followed = at_once(*(partial(follow, start) for start in starts))
    found = [entry for entry in followed if entry is not None]
    found.sort(key=lambda entry: -entry[0])
    return [transform for _, transform in found]


def refine(
    fixed: sitk.Image,
    moving: sitk.Image,
    mask: sitk.Image,
    transform: sitk.Transform,
    spacings_mm: tuple[float, ...],
) -> None:
    """Optimise `transform` in-place by mutual information inside a mask of the fixed image.

    Args:
      spacings_mm: voxel sides of the grids, used one after the other.
    """
    for spacing_mm in spacings_mm:
        refine_on(isotropic(fixed, spacing_mm), isotropic(moving, spacing_mm), mask, transform)


def refine_on(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, transform: sitk.Transform
) -> None:
    """Optimise `transform` in-place as `refine` does, on the grids that the images have."""
    descend(
        fixed, moving, transform, FINE_STEPS, FINE_STEP_MM, on_grid(mask, fixed), information=True
    )
