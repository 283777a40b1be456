import numpy as np
import pytest

from msseg_jax.data.dataset import DatasetError
from msseg_jax.data.split import HoldOut, choose_validation, deal_folds


def test_validation_holds_out_lesions_in_proportion():
    has_lesions = [k % 4 != 0 for k in range(40)]  # 30 of 40
    for seed in range(5):
        held_out = choose_validation(has_lesions, 8, seed)
        assert len(held_out) == 8
        assert sum(has_lesions[k] for k in held_out) == 6
    assert choose_validation(has_lesions, 8, 0) != choose_validation(has_lesions, 8, 1)
    assert choose_validation(has_lesions, 8, 0) == choose_validation(has_lesions, 8, 0)


@pytest.mark.parametrize(("patients", "positive", "count"), [(40, 10, 1), (4, 2, 1), (5, 2, 3)])
def test_each_side_of_the_split_has_new_lesions(patients, positive, count):
    for seed in range(20):
        has_lesions = [k < positive for k in range(patients)]
        held_out = choose_validation(has_lesions, count, seed)
        assert len(held_out) == count
        assert 1 <= sum(has_lesions[k] for k in held_out) < positive


def test_a_single_patient_with_new_lesions_is_trained_on():
    for seed in range(20):
        assert 0 not in choose_validation([True, False, False, False], 3, seed)


@pytest.mark.parametrize(
    ("patients", "positive", "folds"), [(40, 29, 5), (16, 12, 3), (7, 3, 3), (10, 10, 4), (5, 2, 2)]
)
def test_folds_share_out_everybody_and_the_new_lesions_evenly(patients, positive, folds):
    has_lesions = (np.random.default_rng(9).permutation(patients) < positive).tolist()
    for seed in range(10):
        dealt = deal_folds(has_lesions, folds, seed)
        assert len(dealt) == folds
        assert sorted(k for fold in dealt for k in fold) == list(range(patients))
        sizes = [len(fold) for fold in dealt]
        with_lesions = [sum(has_lesions[k] for k in fold) for fold in dealt]
        assert max(sizes) - min(sizes) <= 1
        assert max(with_lesions) - min(with_lesions) <= 1
        assert min(with_lesions) >= 1


def test_folds_are_a_function_of_the_seed():
    has_lesions = [k % 4 != 0 for k in range(40)]
    assert deal_folds(has_lesions, 5, 0) == deal_folds(has_lesions, 5, 0)
    assert deal_folds(has_lesions, 5, 0) != deal_folds(has_lesions, 5, 1)
    # The same from version to version, as an older one may have begun the cross-validation.
    assert deal_folds([True, False, True, True, False, True], 2, 0) == [{1, 2, 5}, {0, 3, 4}]


def test_the_fold_asked_for_is_one_of_all_and_changes_none():
    has_lesions = [k % 4 != 0 for k in range(17)]
    chosen = [HoldOut(3, folds=4, fold=k).choose(has_lesions) for k in range(4)]
    assert chosen == deal_folds(has_lesions, 4, 3)
    assert HoldOut(3, folds=4, fold=1).all_folds(has_lesions) == chosen


def test_without_folds_as_many_as_asked_for_are_held_out_or_none():
    has_lesions = [True, True, False, True]
    assert HoldOut(0).choose(has_lesions) == set()
    assert HoldOut(0).all_folds(has_lesions) == []
    assert HoldOut(0, patients=2).choose(has_lesions) == choose_validation(has_lesions, 2, 0)


def test_a_fold_without_new_lesions_is_refused():
    with pytest.raises(
        DatasetError, match=r"folds is 3, and 2 of the 6 patients have .*; wanted one in every fold"
    ):
        deal_folds([True, False, False, True, False, False], 3, 0)


@pytest.mark.parametrize(("patients", "folds", "largest"), [(40, 5, 8), (16, 5, 4), (5, 5, 1)])
def test_the_largest_fold_is_known_beforehand(patients, folds, largest):
    assert HoldOut(0, folds=folds).largest(patients) == largest
    assert max(map(len, deal_folds([True] * patients, folds, 0))) == largest


def test_more_folds_or_held_out_patients_than_there_are_is_refused():
    with pytest.raises(DatasetError, match=r"config.data.folds is 6; wanted at most 5"):
        HoldOut(0, folds=6).largest(5)
    with pytest.raises(DatasetError, match=r"validation_patients is 5; wanted 0 to 4"):
        HoldOut(0, patients=5).largest(5)
