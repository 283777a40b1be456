import json
import math

import numpy as np
import pytest

from msseg_jax.evaluation.scores import (
    challenge_scores,
    compare_lesions,
    count_lesions,
    dice,
    find_lesions,
    surface_distances,
)
from msseg_jax.system.errors import InputError
from tests.support.session import DATA

# Masks and their scores from the challenge's program (animaSegPerfAnalyzer), to six decimals.
ORACLE = DATA / "challenge_scores"
CASES = json.loads(ORACLE.with_suffix(".json").read_text())
ISOTROPIC = (2.0, 2.0, 2.0)  # 8 mm3: every lesion is large enough


def mask(*boxes, shape=(10, 20, 30)):
    result = np.zeros(shape, bool)
    for box in boxes:
        result[box] = True
    return result


CUBE = np.s_[1:3, 1:3, 1:3]  # 8 voxels
ROW = np.s_[6, 6, 0:10]  # 10 voxels
EMPTY = mask()


@pytest.mark.parametrize("case", CASES)
def test_scores_equal_those_of_the_challenges_program(case):
    oracle = CASES[case]
    with np.load(ORACLE.with_suffix(".npz")) as packed:
        reference, prediction = (
            np.unpackbits(packed[f"{case}/{side}"], count=math.prod(oracle["shape"]))
            .reshape(oracle["shape"])
            .astype(bool)
            for side in ("ref", "test")
        )
    scores = challenge_scores(reference, prediction, oracle["spacing_mm"])
    expected = {name: math.nan if v is None else v for name, v in oracle["expected"].items()}
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=5.1e-7, nan_ok=True), name  # six decimals


def test_dice_matches_a_calculation_by_hand():
    assert dice(mask(CUBE), mask(np.s_[2:4, 1:3, 1:3])) == pytest.approx(2 * 4 / 16)
    assert dice(mask(CUBE), mask(CUBE)) == 1
    assert dice(mask(CUBE), EMPTY) == 0
    assert math.isnan(dice(EMPTY, EMPTY))


def test_voxel_measures_match_a_calculation_by_hand():
    reference, prediction = mask(CUBE), mask(np.s_[2:4, 1:3, 1:4])  # 8, 12 voxels, 4 common
    scores = challenge_scores(reference, prediction, ISOTROPIC)
    assert scores["Jaccard"] == 4 / 16
    assert scores["Dice"] == 8 / 20
    assert scores["Sensitivity"] == 4 / 8
    assert scores["Specificity"] == (6000 - 16) / (6000 - 8)
    assert scores["PPV"] == 4 / 12
    assert scores["NPV"] == (6000 - 16) / (6000 - 12)
    assert scores["RelativeVolumeError"] == 50.0


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        (EMPTY, EMPTY, (0, 0, 0)),
        (mask(CUBE), EMPTY, (0, 1, 0)),
        (EMPTY, mask(CUBE, ROW), (0, 0, 2)),
        (mask(CUBE, ROW), mask(CUBE), (1, 1, 0)),
        # 10 % of the row is covered, which is not more than 10 %. And 90 % of it lies outside the
        # prediction.
        (mask(ROW), mask(np.s_[6, 6, 0]), (0, 1, 1)),
        (mask(ROW), mask(np.s_[6, 6, 0:2]), (1, 0, 1)),
        (mask(ROW), mask(np.s_[6, 6, 0:3]), (1, 0, 0)),
        # Voxels that share only an edge are separate lesions.
        (mask(np.s_[0, 0, 0], np.s_[1, 1, 0]), EMPTY, (0, 2, 0)),
        # A prediction may lie outside with 7 of 10 voxels, but not with 8 of 11. It is confirmed in
        # both cases: at least 3 of 11 voxels are covered, by a lesion that is completely inside.
        (mask(np.s_[6, 6, 0:3]), mask(ROW), (1, 0, 0)),
        (mask(np.s_[6, 6, 0:3]), mask(np.s_[6, 6, 0:11]), (0, 1, 0)),
    ],
)
def test_detected_missed_and_false_lesions_are_counted(reference, prediction, expected):
    counts = count_lesions(compare_lesions(reference, prediction, ISOTROPIC))
    assert tuple(counts.values()) == expected


@pytest.mark.parametrize(("inside", "detected"), [(13, 1), (12, 0)])
def test_lesions_beyond_65_percent_of_the_cover_are_not_examined(inside, detected):
    """Two lesions cover a reference row.

    The first lies completely inside the row. The second covers 7 voxels, and lies outside with 28
    of its 35 voxels. If the first covers 13 of 20 covered voxels, these are 65 %, so the second is
    not examined. 12 of 19 are less than 65 %.
    """
    reference = mask(np.s_[5, 5, 0:21])
    prediction = mask(np.s_[5, 5, 0:inside], np.s_[5:10, 5, 14:21])
    agreement = compare_lesions(reference, prediction, ISOTROPIC)
    assert agreement.detected.tolist() == [bool(detected)]


def test_lesions_up_to_3_mm3_do_not_count_and_spacing_is_in_single_precision():
    three = mask(np.s_[0, 0, 0:3])
    assert find_lesions(three, (1.0, 1.0, 1.0))[1] == 0  # 3 mm3 are not more than 3 mm3
    assert find_lesions(three, (1.0, 1.0, 1.001))[1] == 1
    # 15 voxels of 0.2 mm3 are 3 mm3, but 0.8 in single precision is a little more than 0.8.
    assert find_lesions(mask(np.s_[0, 0, 0:15]), (0.8, 0.5, 0.5))[1] == 1


def test_lesions_are_numbered_by_size():
    labels, count = find_lesions(mask(np.s_[6, 6, 0:4], CUBE), ISOTROPIC)
    assert (count, labels[1, 1, 1], labels[6, 6, 0]) == (2, 1, 2)


def test_the_predicted_lesions_are_counted_if_the_reference_is_empty():
    scores = challenge_scores(EMPTY, mask(CUBE, ROW, np.s_[9, 9, 9]), (1.0, 1.0, 1.0))
    assert scores == {"NbTestedLesions": 2, "VolTestedLesions": 18}


def test_a_reference_with_only_small_lesions_has_no_sensitivity():
    scores = challenge_scores(mask(np.s_[0, 0, 0]), mask(CUBE), (1.0, 1.0, 1.0))
    assert math.isnan(scores["SensL"])
    assert scores["PPVL"] == scores["F1_score"] == 0


def test_specificity_and_npv_are_nan_if_the_masks_fill_the_volume():
    whole = np.ones((4, 4, 4), bool)
    scores = challenge_scores(whole, whole, ISOTROPIC)
    assert math.isnan(scores["Specificity"])
    assert math.isnan(scores["NPV"])
    assert scores["F1_score"] == 1


def test_arrays_that_are_not_masks_are_refused():
    with pytest.raises(InputError, match=r"prediction: 8 voxels .* for example 0\.5\."):
        challenge_scores(EMPTY, mask(CUBE) * 0.5, ISOTROPIC)
    with pytest.raises(InputError, match=r"prediction has shape \(2, 2, 2\)"):
        challenge_scores(EMPTY, np.zeros((2, 2, 2)), ISOTROPIC)


def test_surface_distances_between_two_voxels_match_a_calculation_by_hand():
    """The voxels are 4 slices of 2 mm apart.

    The surface of a voxel lies half a slice to either side of it. From the near side, the other
    voxel is 3 slices away, and from the far side 4 slices.
    """
    one, other = mask(np.s_[5, 5, 5]), mask(np.s_[5, 5, 9])
    distances = surface_distances(one, other, (1.0, 1.0, 2.0))
    assert distances == {"Hausdorff95": 8.0, "SurfaceDistance": 7.0}
    assert surface_distances(one, one, ISOTROPIC) == {"Hausdorff95": 0, "SurfaceDistance": 0}
    assert math.isnan(surface_distances(one, EMPTY, ISOTROPIC)["Hausdorff95"])


def test_the_largest_5_percent_of_the_distances_do_not_affect_hausdorff95():
    slab = mask(np.s_[2, 0:20, 0:30])
    speck = mask(np.s_[2, 0:20, 0:30], np.s_[8, 10, 10])
    distances = surface_distances(slab, speck, (1.0, 1.0, 1.0))
    assert distances["Hausdorff95"] == 0
    assert 0 < distances["SurfaceDistance"] < 0.1


def test_at_most_one_more_lesion_is_examined_than_the_reference_has():
    """Four predicted lesions cover 5, 5, 4 and 4 of 18 voxels.

    To make up 65 % of the covered part, the third would be needed. It lies outside with 17 of 21
    voxels. But if there is one reference lesion, only two lesions are examined.
    """
    reference = mask(np.s_[5, 5, 0:21])
    far = np.s_[6:9, 5, 12:16], np.s_[9, 5, 12:16], np.s_[9, 6, 12]
    prediction = mask(np.s_[5, 5, 0:5], np.s_[5, 5, 6:11], np.s_[5, 5, 12:16], np.s_[5, 5, 17:21])
    prediction |= mask(*far)
    agreement = compare_lesions(reference, prediction, ISOTROPIC)
    assert agreement.confirmed.size == 4
    assert agreement.detected.all()
    twice = reference | mask(np.s_[0, 0, 0:9])
    assert not compare_lesions(twice, prediction, ISOTROPIC).detected.any()
