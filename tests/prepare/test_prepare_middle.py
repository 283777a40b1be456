from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from msseg_jax.prepare.middle import bring_to_middle, check_match
from msseg_jax.prepare.registration import rigid
from msseg_jax.prepare.scan import Scan
from msseg_jax.prepare.visits import Registered, Visit
from msseg_jax.system.errors import InputError

MOTION = rigid(Rotation.from_euler("xyz", (6, -4, 10), degrees=True).as_matrix(), (8, -5, 3))


def ramp_of(size, spacing_mm, direction=None, origin=(0.0, 0.0, 0.0)) -> sitk.Image:
    """Make an image with the value 100 + x + 2 y + 3 z at the point (x, y, z).

    Linear interpolation of this image is exact.
    """
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing_mm)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    indices = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    points = indices * spacing_mm @ np.array(image.GetDirection()).reshape(3, 3).T + origin
    filled = sitk.GetImageFromArray((100 + points @ (1, 2, 3)).astype(np.float32).T.copy())
    filled.CopyInformation(image)
    return filled


def ones(image: sitk.Image) -> sitk.Image:
    mask = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    mask.CopyInformation(image)
    return mask


def registered(first, second, transform, brains=(None, None)) -> Registered:
    visits = tuple(
        Visit(Scan(Path(name), image, None, name, True), {}, brain or ones(image), None, None, None)
        for name, image, brain in zip("ab", (first, second), brains, strict=True)
    )  # fmt: skip
    return Registered(visits, transform, 1.0, 0.0)


def points_of_grid(image: sitk.Image) -> np.ndarray:
    """Return the points of all voxels: (z, y, x, 3) mm."""
    indices = np.stack(np.meshgrid(*map(np.arange, image.GetSize()), indexing="ij"), axis=-1)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    points = indices * np.array(image.GetSpacing()) @ direction.T + np.array(image.GetOrigin())
    return points.transpose(2, 1, 0, 3)


def test_each_visit_is_resampled_to_half_way_between_the_visits():
    image = ramp_of((60, 60, 40), (1.0, 1.0, 1.5))
    middle = bring_to_middle(registered(image, image, MOTION))
    points = points_of_grid(middle.brain)
    inner = (slice(12, -12),) * 3  # without the border, where interpolation lacks voxels
    for found, to_visit in zip(middle.images, middle.to_visits, strict=True):
        there = [to_visit.TransformPoint(p) for p in points[inner].reshape(-1, 3).tolist()]
        expected = 100 + np.array(there) @ (1, 2, 3)
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(found)[inner].ravel(), expected, rtol=1e-4
        )


def test_the_transforms_through_the_middle_give_the_whole_transform():
    image = ramp_of((40, 40, 40), (1.0, 1.0, 1.0))
    middle = bring_to_middle(registered(image, image, MOTION))
    point = (10.0, 20.0, 30.0)
    half_way = middle.to_visits[0].GetInverse().TransformPoint(point)
    np.testing.assert_allclose(
        middle.to_visits[1].TransformPoint(half_way), MOTION.TransformPoint(point), atol=1e-6
    )


def test_swapping_the_visits_only_swaps_the_images():
    first = ramp_of((40, 44, 30), (1.0, 1.0, 1.5))
    second = ramp_of((50, 40, 36), (1.2, 0.9, 1.3), origin=(3.0, -2.0, 1.0))
    one = bring_to_middle(registered(first, second, MOTION))
    other = bring_to_middle(registered(second, first, MOTION.GetInverse()))
    assert one.brain.GetSize() == other.brain.GetSize()
    np.testing.assert_allclose(one.brain.GetOrigin(), other.brain.GetOrigin(), atol=1e-4)
    for a, b in zip(one.images, reversed(other.images), strict=True):
        a, b = sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b)
        both = (a > 0) & (b > 0)  # rounding decides if voxels on the border are inside
        assert both.mean() > 0.5
        np.testing.assert_allclose(a[both], b[both], rtol=1e-3)


def test_voxels_have_the_smaller_spacing_of_both_visits_along_each_axis():
    # The second visit is sagittal. Its first axis points to the back, its third to the left.
    sagittal = np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])
    first = ramp_of((50, 50, 15), (0.9, 0.9, 3.0))
    second = ramp_of((45, 45, 35), (1.0, 1.1, 1.2), sagittal, (0.0, 0.0, 44.0))
    middle = bring_to_middle(registered(first, second, rigid(np.eye(3), (0, 0, 0))))
    np.testing.assert_allclose(middle.brain.GetSpacing(), (0.9, 0.9, 1.1))
    np.testing.assert_allclose(middle.brain.GetDirection(), np.eye(3).ravel(), atol=1e-9)


def test_the_axes_of_the_grid_are_half_way_between_those_of_the_scans():
    def turned(degrees):
        return Rotation.from_euler("z", degrees, degrees=True).as_matrix()

    first = ramp_of((40, 40, 40), (1.0, 1.0, 1.0), turned(4))
    second = ramp_of((40, 40, 40), (1.0, 1.0, 1.0), turned(10))
    middle = bring_to_middle(registered(first, second, rigid(np.eye(3), (0, 0, 0))))
    np.testing.assert_allclose(
        np.array(middle.brain.GetDirection()).reshape(3, 3), turned(7), atol=1e-9
    )


def test_brain_in_the_view_of_one_visit_only_is_left_out_and_measured():
    first = ramp_of((20, 20, 30), (1.0, 1.0, 1.0))
    second = ramp_of((20, 20, 30), (1.0, 1.0, 1.0), origin=(0.0, 0.0, 10.0))
    middle = bring_to_middle(registered(first, second, rigid(np.eye(3), (0, 0, 0))))
    # Both visits show z from 10 to 29. The grid covers exactly this range.
    assert middle.brain.GetSize() == (20, 20, 20)
    assert sitk.GetArrayFromImage(middle.brain).all()
    assert middle.unseen_ml == pytest.approx(2 * 20 * 20 * 10 / 1000)
    inside = [sitk.Image(first.GetSize(), sitk.sitkUInt8), sitk.Image(20, 20, 30, sitk.sitkUInt8)]
    for mask, image in zip(inside, (first, second), strict=True):
        mask.CopyInformation(image)
    inside[0][5:10, 5:10, 12:14] = 1
    inside[1][5:10, 5:10, 3:5] = 1  # z 13 and 14; the masks share one slice
    union = bring_to_middle(
        registered(first, second, rigid(np.eye(3), (0, 0, 0)), tuple(inside))
    ).brain
    assert sitk.GetArrayFromImage(union).sum() == 5 * 5 * 3


def test_visits_that_are_not_aligned_are_refused():
    generator = np.random.default_rng(0)
    noise = sitk.SmoothingRecursiveGaussian(
        sitk.GetImageFromArray(generator.normal(size=(60, 60, 60)).astype(np.float32)), 3.0
    )
    shifted = sitk.Resample(noise, noise, rigid(np.eye(3), (4.0, 0, 0)), sitk.sitkLinear, 0.0)
    same = bring_to_middle(registered(noise, noise, rigid(np.eye(3), (0, 0, 0))))
    assert check_match(same, "a and b").displacement_mm < 0.05
    apart = bring_to_middle(registered(noise, shifted, rigid(np.eye(3), (0, 0, 0))))
    with pytest.raises(InputError, match=r"a and b: the visits are not aligned after registration"):
        check_match(apart, "a and b")


def test_a_part_without_data_in_one_visit_is_left_out_and_measured():
    array = np.full((20, 22, 30), 100, np.float32)
    array[4:16, 5:17, 10:22] = 0  # z, y, x
    image, whole = (sitk.GetImageFromArray(voxels) for voxels in (array, np.full_like(array, 100)))
    brain = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    brain[2:28, 2:20, 2:18] = 1
    found = registered(image, whole, rigid(np.eye(3), (0, 0, 0)), (brain, brain))
    first, second = found.visits
    empty = sitk.Cast(image == 0, sitk.sitkUInt8)
    first = replace(first, scan=replace(first.scan, empty=empty))
    middle = bring_to_middle(replace(found, visits=(first, second)))
    assert middle.empty_ml == (pytest.approx(12**3 / 1000), 0.0)
    expected = sitk.GetArrayFromImage(brain) & (array > 0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(middle.brain), expected)
