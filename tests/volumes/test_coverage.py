import numpy as np
import pytest

from msseg_jax.volumes.coverage import empty_parts, empty_warnings

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
