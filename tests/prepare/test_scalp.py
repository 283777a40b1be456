"""Test the removal of the scalp with a head of spheres: brain, bone and scalp."""

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.scalp import CHANNEL_MM, SCALP_MM, below_scalp, without_scalp

SIDE_MM = 2.0
BRAIN_MM, BONE_MM, SKIN_MM = 50.0, 60.0, 66.0  # outer radii


def head(lower: float = -80.0, upper: float = 80.0) -> tuple[sitk.Image, np.ndarray]:
    """Return a head that is in view between two heights (mm), and the distance to its centre."""
    across = np.arange(-80.0, 81.0, SIDE_MM)
    z, y, x = np.meshgrid(np.arange(lower, upper + 1, SIDE_MM), across, across, indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    array = np.select([radius <= BRAIN_MM, radius <= BONE_MM, radius <= SKIN_MM], [1, 0, 1.6], 0)
    array[radius < 12] = 0  # a ventricle, as dark as air
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing((SIDE_MM,) * 3)
    return image, radius


def test_scalp_and_outer_bone_are_removed_and_the_brain_is_not():
    image, radius = head()
    inside = below_scalp(image)
    assert inside[radius < SKIN_MM - SCALP_MM - SIDE_MM].all()
    assert not inside[radius > SKIN_MM - SCALP_MM + SIDE_MM].any()
    assert SKIN_MM - SCALP_MM > BRAIN_MM + SIDE_MM  # so the brain is whole


def test_nothing_is_removed_where_the_head_leaves_the_field_of_view():
    image, radius = head(-20, 20)
    inside = below_scalp(image)
    assert inside[0][radius[0] < 40].all()
    assert inside[-1][radius[-1] < 40].all()
    assert not inside[0][radius[0] > SKIN_MM].any()


def test_a_ventricle_and_a_narrow_channel_to_the_outside_are_kept():
    image, radius = head()
    array = sitk.GetArrayFromImage(image)
    middle = array.shape[0] // 2
    half = int(CHANNEL_MM / SIDE_MM / 2)
    array[middle - half : middle + half, middle - half : middle + half, :middle] = 0  # a channel
    opened = sitk.GetImageFromArray(array)
    opened.CopyInformation(image)
    assert below_scalp(opened)[radius < BRAIN_MM - SIDE_MM].all()


def test_an_image_without_air_is_kept():
    image = sitk.Image((20, 20, 20), sitk.sitkFloat32) + 1
    assert below_scalp(image).all()


def test_the_voxels_that_stay_keep_their_value():
    image, radius = head()
    result = sitk.GetArrayFromImage(without_scalp(2 * image, image))
    kept = radius < SKIN_MM - SCALP_MM - SIDE_MM
    np.testing.assert_array_equal(result[kept], 2 * sitk.GetArrayFromImage(image)[kept])
    assert (result[radius > BONE_MM] == 0).all()
