import math

import numpy as np
import pytest

from msseg_jax.scores import LesionCounts, count_lesions, dice


def mask(*boxes):
    result = np.zeros((10, 11, 12), bool)
    for box in boxes:
        result[box] = True
    return result


CUBE = np.s_[1:3, 1:3, 1:3]  # 8 voxels
ROW = np.s_[6, 6, 0:10]  # 10 voxels
EMPTY = mask()


def test_dice_by_hand():
    assert dice(mask(CUBE), mask(np.s_[2:4, 1:3, 1:3])) == pytest.approx(2 * 4 / 16)
    assert dice(mask(CUBE), mask(CUBE)) == 1
    assert dice(mask(CUBE), mask(ROW)) == 0
    assert dice(mask(CUBE), EMPTY) == 0


def test_dice_of_two_empty_masks_is_undefined():
    assert math.isnan(dice(EMPTY, EMPTY))


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        (EMPTY, EMPTY, LesionCounts(0, 0, 0)),
        (mask(CUBE), EMPTY, LesionCounts(0, 1, 0)),
        (EMPTY, mask(CUBE, ROW), LesionCounts(0, 0, 2)),
        (mask(CUBE, ROW), mask(CUBE), LesionCounts(1, 1, 0)),
        (mask(ROW), mask(np.s_[6, 6, 0]), LesionCounts(0, 1, 0)),  # 10 % is not more than 10 %
        (mask(ROW), mask(np.s_[6, 6, 0:2]), LesionCounts(1, 0, 0)),
        # Touching by an edge alone is not one lesion.
        (mask(np.s_[0, 0, 0], np.s_[1, 1, 0]), EMPTY, LesionCounts(0, 2, 0)),
        (mask(CUBE), mask(np.s_[1:3, 1:3, 2:9], ROW), LesionCounts(1, 0, 1)),
    ],
)
def test_lesions_found_missed_and_false(reference, prediction, expected):
    assert count_lesions(reference, prediction) == expected
