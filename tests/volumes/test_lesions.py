import math

import numpy as np
import pytest

from msseg_jax.volumes.lesions import describe_lesions, number_lesions, voxel_mm3


@pytest.fixture
def labels():
    mask = np.zeros((8, 9, 10), bool)
    mask[1, 2, 3:5] = True  # 2 voxels
    mask[4:6, 5, 6:9] = True  # 6 voxels
    mask[7, 8, 9] = True  # 1 voxel
    return number_lesions(mask)[0]


def test_lesions_are_numbered_from_the_largest(labels):
    assert np.bincount(labels.ravel())[1:].tolist() == [6, 2, 1]


def test_lesions_below_the_minimum_size_do_not_count(labels):
    numbers, count = number_lesions(labels > 0, least_voxels=2)
    assert count == 2
    assert numbers[7, 8, 9] == 0


def test_volume_centre_and_probability_match_a_calculation_by_hand(labels):
    affine = np.array([[-2, 0, 0, 10], [0, 1, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
    probability = np.zeros(labels.shape)
    probability[1, 2, 3:5] = 0.6, 0.8
    rows = describe_lesions(labels, affine, (2, 1, 3), probability)
    assert [row["lesion"] for row in rows] == [1, 2, 3]
    assert [row["volume_mm3"] for row in rows] == [36, 12, 6]
    assert rows[1]["mean_probability"] == pytest.approx(0.7)
    centre = [rows[1][axis] for axis in ("x_mm", "y_mm", "z_mm")]
    assert centre == pytest.approx([-2 * 1 + 10, 2 + 20, 3 * 3.5 + 30])


def test_the_probability_is_nan_without_a_map(labels):
    rows = describe_lesions(labels, np.eye(4), (1, 1, 1))
    assert all(math.isnan(row["mean_probability"]) for row in rows)


def test_there_are_no_rows_without_lesions():
    labels, count = number_lesions(np.zeros((3, 3, 3), bool))
    assert count == 0
    assert describe_lesions(labels, np.eye(4), (1, 1, 1)) == []


def test_the_voxel_volume_is_computed_from_sides_in_single_precision():
    assert voxel_mm3((0.8, 0.5, 0.5)) == float(np.float32(0.8)) / 4
