import math

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from msseg_jax.prepare import threads
from msseg_jax.prepare.registration import (
    centre_of,
    compose,
    correlation,
    coverage,
    half_of,
    isotropic,
    matrix_of,
    motion_of,
    nearest_rigid,
    points_of,
    refine,
    rigid,
    search,
)


def turn(*degrees: float) -> np.ndarray:
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def blobs(spacing_mm=(2.0, 2.0, 3.0), seed: int = 0) -> sitk.Image:
    """Make a ball of 140 mm with twelve soft blobs in it. It has no rotational symmetry."""
    generator = np.random.default_rng(seed)
    size = np.ceil(180 / np.array(spacing_mm)).astype(int)
    image = sitk.Image(size.tolist(), sitk.sitkFloat32)
    image.SetSpacing(spacing_mm)
    image.SetOrigin((-90.0,) * 3)
    axes = [-90 + mm * np.arange(n) for n, mm in zip(size, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    array = (1.0 * (x**2 + y**2 + (1.1 * z) ** 2 < 70**2)).astype(np.float32)
    for centre in generator.uniform(-40, 40, (12, 3)):
        near = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        array += 0.8 * np.exp(-near / (2 * 9**2)).astype(np.float32)
    filled = sitk.GetImageFromArray(array.T.copy())
    filled.CopyInformation(image)
    return filled


def moved(image: sitk.Image, motion: sitk.Transform) -> sitk.Image:
    """Return the image after a motion, in a field of view with the head in the middle again."""
    middle = np.array(motion.TransformPoint((0.0, 0.0, 0.0)))
    return sitk.Resample(
        image, image.GetSize(), motion.GetInverse(), sitk.sitkLinear, (middle - 90).tolist(),
        image.GetSpacing(), image.GetDirection(), 0.0,
    )  # fmt: skip


def furthest_mm(one: sitk.Transform, other: sitk.Transform, points: np.ndarray) -> float:
    (a, b), (c, d) = matrix_of(one), matrix_of(other)
    return float(np.linalg.norm(points @ (a - c).T + b - d, axis=1).max())


@pytest.mark.parametrize("degrees", [(0, 0, 0), (10, -20, 30), (0, 90, 0), (100, 40, -60)])
def test_half_of_a_motion_applied_twice_is_the_motion(degrees):
    whole = rigid(turn(*degrees), [10.0, -40.0, 25.0])
    half = half_of(whole)
    for found, expected in zip(matrix_of(compose(half, half)), matrix_of(whole), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    assert motion_of(half, np.zeros(3))[0] == pytest.approx(motion_of(whole, np.zeros(3))[0] / 2)


def test_compose_applies_the_inner_transform_first():
    move, quarter = rigid(np.eye(3), [1.0, 0, 0]), rigid(turn(0, 0, 90), np.zeros(3))
    np.testing.assert_allclose(
        compose(quarter, move).TransformPoint((0.0, 0, 0)), (0, 1, 0), atol=1e-12
    )
    np.testing.assert_allclose(
        compose(move, quarter).TransformPoint((0.0, 0, 0)), (1, 0, 0), atol=1e-12
    )


def test_the_nearest_rigid_motion_of_a_rigid_one_is_itself():
    motion, centre = rigid(turn(20, 5, -12), [3.0, 4.0, 5.0]), np.array([7.0, -8.0, 9.0])
    found = nearest_rigid(motion, centre)
    np.testing.assert_allclose(matrix_of(found)[0], matrix_of(motion)[0], atol=1e-9)
    np.testing.assert_allclose(matrix_of(found)[1], matrix_of(motion)[1], atol=1e-9)


def test_the_nearest_rigid_motion_drops_scale_and_maps_the_centre_to_the_same_point():
    motion, centre = rigid(1.05 * turn(20, 5, -12), [3.0, 4.0, 5.0]), np.array([7.0, -8.0, 9.0])
    found = nearest_rigid(motion, centre)
    np.testing.assert_allclose(matrix_of(found)[0], turn(20, 5, -12), atol=1e-9)
    np.testing.assert_allclose(
        found.TransformPoint(centre.tolist()), motion.TransformPoint(centre.tolist())
    )


def test_a_motion_is_measured_in_degrees_and_in_mm_at_the_centre():
    centre = np.array([0.0, 50.0, 0.0])
    degrees, mm = motion_of(rigid(turn(0, 0, 90), np.zeros(3)), centre)
    assert (degrees, mm) == pytest.approx((90, 50 * math.sqrt(2)))


def test_cubic_voxels_cover_the_same_field_of_view():
    image = blobs((2.0, 2.0, 3.0))
    cubes = isotropic(image, 4.0)
    assert cubes.GetSpacing() == (4.0, 4.0, 4.0)
    assert cubes.GetSize() == (45, 45, 45)
    # The outer faces of the first voxels lie in one plane.
    first_faces = np.array(cubes.GetOrigin()) - 2.0
    np.testing.assert_allclose(first_faces, np.array(image.GetOrigin()) - (1.0, 1.0, 1.5))
    assert sitk.GetArrayFromImage(cubes).mean() == pytest.approx(
        sitk.GetArrayFromImage(image).mean(), rel=0.02
    )


def test_points_of_a_mask_are_the_positions_of_its_voxels():
    mask = sitk.Image(5, 6, 7, sitk.sitkUInt8)
    mask.SetSpacing((1.0, 2.0, 3.0))
    mask.SetOrigin((10.0, 20.0, 30.0))
    mask.SetDirection(turn(10, 20, 30).ravel().tolist())
    for index in ((1, 2, 3), (4, 0, 6)):
        mask[index] = 1
    expected = [mask.TransformIndexToPhysicalPoint(index) for index in ((1, 2, 3), (4, 0, 6))]
    np.testing.assert_allclose(points_of(mask), expected)
    np.testing.assert_allclose(centre_of(mask), np.mean(expected, axis=0))


def test_coverage_ends_at_the_outer_faces_of_the_voxels():
    image = sitk.Image(4, 4, 4, sitk.sitkFloat32)  # from -0.5 to 3.5 mm
    grid = sitk.Image(12, 1, 1, sitk.sitkUInt8)
    grid.SetSpacing((0.5, 1.0, 1.0))
    grid.SetOrigin((-1.25, 1.0, 1.0))  # -1.25, -0.75, -0.25, ... 4.25
    covered = sitk.GetArrayFromImage(coverage(image, grid, sitk.Transform())).ravel()
    assert covered.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]


def test_correlation_compares_the_common_voxels_and_is_nan_without_any():
    image = blobs()
    everywhere = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    everywhere.CopyInformation(image)
    aside = rigid(np.eye(3), [60.0, 0, 0])
    assert correlation(image, image, everywhere, sitk.Transform()) == pytest.approx(1)
    assert correlation(image, image * -2 + 5, everywhere, sitk.Transform()) == pytest.approx(-1)
    assert correlation(image, image, everywhere, aside) < 0.5
    assert math.isnan(correlation(image, image, everywhere, rigid(np.eye(3), [500.0, 0, 0])))


@pytest.mark.parametrize(
    ("degrees", "shift_mm"), [((28, 0, 0), (0, 0, 40)), ((-15, 18, 12), (25, -25, 10))]
)
def test_a_large_motion_is_found_and_refined_to_a_fraction_of_a_voxel(degrees, shift_mm):
    image = blobs()
    motion = rigid(turn(*degrees), shift_mm)
    other = moved(image, motion)
    mask = sitk.OtsuThreshold(image, 0, 1)
    points, centre = points_of(mask), centre_of(mask)
    # The start is off by 8 mm, as if only one of the visits showed the neck.
    shift = np.array(shift_mm) + np.array([8.0, 0, 0])
    found = search(image, other, mask, centre, [shift])
    assert furthest_mm(found, motion, points) < 15  # near enough for `refine`
    refine(image, other, mask, found, (3.0, 2.0))
    assert furthest_mm(found, motion, points) < 1.0  # half a voxel of the finest grid


def test_transforms_are_bit_identical_for_any_number_of_threads(monkeypatch):
    image = blobs((3.0, 3.0, 4.0))
    other = moved(image, rigid(turn(6, -9, 12), (5.0, -8, 3)))
    mask = sitk.OtsuThreshold(image, 0, 1)
    found = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "_threads", count)
        transform = search(image, other, mask, centre_of(mask), [np.zeros(3)])
        refine(image, other, mask, transform, (4.0,))
        found.append(transform.GetParameters())
    assert found[0] == found[1]


def test_further_starts_are_tried_too():
    image = blobs()
    motion = rigid(turn(0, 0, 120), [0.0, 0, 0])  # too large for the regular starts
    other = moved(image, motion)
    mask = sitk.OtsuThreshold(image, 0, 1)
    near = rigid(turn(0, 0, 110), [0.0, 0, 0])
    found = search(image, other, mask, centre_of(mask), [np.zeros(3)], more=[near])
    assert furthest_mm(found, motion, points_of(mask)) < 15


def test_images_that_do_not_overlap_raise_an_error():
    image = blobs((6.0, 6.0, 6.0))
    mask = sitk.OtsuThreshold(image, 0, 1)
    with pytest.raises(RuntimeError, match="do not overlap from any start"):
        search(image, image, mask, np.zeros(3), [np.array([900.0, 0, 0])])
