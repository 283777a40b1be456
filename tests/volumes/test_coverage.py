import numpy as np
import pytest

from msseg_jax.volumes.coverage import (
    constant_parts,
    empty_parts,
    empty_warnings,
    is_padding,
    with_borders_filled,
)

SHAPE = (20, 20, 20)
IMAGE = np.full(SHAPE, 100.0)


@pytest.fixture
def brain():
    inside = np.zeros(SHAPE, bool)
    inside[2:18, 2:18, 2:18] = True
    return inside


def test_a_part_that_only_one_visit_lacks_is_found_and_fluid_without_signal_is_not(brain):
    empty, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    empty[:6] = True  # a fifth of the brain, and background
    empty[10, 10, 10:13] = True  # three voxels of fluid
    empty[14:17, 14:17, 14:17] = other[14:17, 14:17, 14:17] = True  # no signal at both visits
    found = empty_parts(empty, other, IMAGE, brain, voxel_mm3=8.0)
    expected = np.zeros(SHAPE, bool)
    expected[2:6, 2:18, 2:18] = True
    np.testing.assert_array_equal(found, expected)
    assert not empty_parts(other, empty, IMAGE, brain, voxel_mm3=8.0).any()


def test_fluid_that_is_0_at_one_visit_only_is_not_counted(brain):
    empty, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    empty[5:12, 5:12, 5:12] = True
    image = np.where(empty, 20.0, 100.0)  # dark at the other visit
    assert not empty_parts(empty, other, image, brain, voxel_mm3=8.0).any()
    assert empty_parts(empty, other, IMAGE, brain, voxel_mm3=8.0).sum() == 7**3


def test_a_part_below_1_ml_is_not_counted(brain):
    empty = np.zeros(SHAPE, bool)
    empty[5:10, 5:10, 5:10] = True  # 125 voxels
    other = np.zeros(SHAPE, bool)
    assert empty_parts(empty, other, IMAGE, brain, voxel_mm3=8.0).sum() == 125
    assert empty_parts(empty, other, IMAGE, brain, voxel_mm3=7.9).sum() == 0


def test_each_visit_that_lacks_data_gets_a_warning_with_the_volume():
    assert empty_warnings((0.0, 0.0)) == []
    (warning,) = empty_warnings((0.0, 12.4))
    assert "12 ml of the brain have no data in the second visit" in warning


def test_scattered_voxels_without_data_count_if_there_are_many(brain):
    rng = np.random.default_rng(0)
    other = np.zeros(SHAPE, bool)
    for share, counts in ((0.004, False), (0.05, True)):
        empty = brain & (rng.random(SHAPE) < share)
        found = empty_parts(empty, other, IMAGE, brain, voxel_mm3=1000.0 / 17)  # 17 voxels are 1 ml
        np.testing.assert_array_equal(found, empty & counts)


def test_any_number_of_padding_voxels_is_found_but_no_dark_tissue(brain):
    image = np.random.default_rng(0).normal(100, 10, SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[5, 6, 7] = expected[10, 2:5, 9] = True
    for value in (-1024.0, -32768.0):
        np.testing.assert_array_equal(is_padding(np.where(expected, value, image), brain), expected)
    assert not is_padding(image - 500, brain).any()  # negative, but not far below the others
    assert not is_padding(np.where(expected, 0.0, image), brain).any()


def test_a_slab_of_one_value_is_found_but_no_image_of_few_grey_levels(brain):
    rng = np.random.default_rng(0)
    other = np.where(np.indices(SHAPE)[1] % 6 < 3, 60.0, 100.0) + rng.normal(0, 3, SHAPE)
    image = other + rng.normal(0, 3, SHAPE)
    slab = np.where(np.arange(20)[:, None, None] < 8, 77.0, image)
    expected = brain.copy()
    expected[8:] = False
    np.testing.assert_array_equal(constant_parts(slab, other, brain, voxel_mm3=8.0), expected)
    few = np.rint(image / 20) * 20
    assert (few[brain] == 100).sum() * 8 > 1000  # mm3
    assert not constant_parts(few, np.rint(other / 20) * 20, brain, voxel_mm3=8.0).any()


def test_only_voxels_next_to_data_are_filled_with_it():
    image = np.arange(8000.0).reshape(SHAPE)
    missing = np.zeros(SHAPE, bool)
    missing[12:] = missing[3, 3, 3] = True
    filled = with_borders_filled(np.where(missing, -1024, image), missing, ~missing)
    assert filled[3, 3, 3] in image[2:5, 2:5, 2:5]
    np.testing.assert_array_equal(filled[12:14], np.stack([image[11]] * 2))
    assert (filled[14:] == -1024).all()
    np.testing.assert_array_equal(filled[~missing], image[~missing])
