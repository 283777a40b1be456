import numpy as np
import pytest

from msseg_jax.data.split import HoldOut, choose_validation, deal_folds
from msseg_jax.system.errors import InputError

# Four scans, and two single patients, 3 and 7.
SCANS = [[0, 1, 2], [3], [4, 8, 9], [5, 6], [7], [10, 11, 12, 13]]


def single_patients(count):
    return [[k] for k in range(count)]


def test_new_lesions_are_as_frequent_among_held_out_patients():
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
def test_folds_divide_patients_and_new_lesions_evenly(patients, positive, folds):
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


def test_folds_depend_on_the_seed():
    has_lesions = [k % 4 != 0 for k in range(40)]
    assert deal_folds(has_lesions, 5, 0) == deal_folds(has_lesions, 5, 0)
    assert deal_folds(has_lesions, 5, 0) != deal_folds(has_lesions, 5, 1)
    # The folds must not change between versions: an older one may have started the run.
    assert deal_folds([True, False, True, True, False, True], 2, 0) == [{1, 2, 5}, {0, 3, 4}]


def test_the_requested_fold_does_not_change_the_folds():
    has_lesions = [k % 4 != 0 for k in range(17)]
    chosen = [
        HoldOut(3, folds=4, fold=k).choose(has_lesions, single_patients(17)) for k in range(4)
    ]
    assert chosen == deal_folds(has_lesions, 4, 3)
    assert HoldOut(3, folds=4, fold=1).all_folds(has_lesions, single_patients(17)) == chosen


def test_without_folds_the_requested_number_is_held_out():
    has_lesions = [True, True, False, True]
    assert HoldOut(0).choose(has_lesions, single_patients(4)) == set()
    assert HoldOut(0).all_folds(has_lesions, single_patients(4)) == []
    for count in range(4):
        chosen = HoldOut(0, patients=count).choose(has_lesions, single_patients(4))
        assert chosen == choose_validation(has_lesions, count, 0)


def test_held_out_patients_do_not_change_between_versions():
    """Check fixed results, because an older version may have started a run."""
    has_lesions = [True, False, True, True, False, True]
    assert HoldOut(0, patients=2).choose(has_lesions, single_patients(6)) == {1, 2}
    assert HoldOut(7, patients=3).choose(has_lesions, single_patients(6)) == {0, 2, 4}
    assert HoldOut(0, folds=2).all_folds(has_lesions, single_patients(6)) == [{1, 2, 5}, {0, 3, 4}]


def test_pairs_of_one_scan_stay_on_one_side():
    has_lesions = [k not in (0, 3, 5) for k in range(14)]
    splits = [
        HoldOut(seed, patients=count).choose(has_lesions, SCANS)
        for seed in range(10)
        for count in range(11)
    ]
    splits += [
        fold
        for seed in range(10)
        for folds in (2, 3, 5)
        for fold in HoldOut(seed, folds=folds).all_folds(has_lesions, SCANS)
    ]
    for held_out in splits:
        for group in SCANS:
            assert len(held_out & set(group)) in (0, len(group))


@pytest.mark.parametrize(("count", "held_out"), [(0, 0), (1, 4), (4, 4), (5, 8), (8, 8), (12, 12)])
def test_no_more_groups_than_necessary_are_held_out(count, held_out):
    """Use four scans with four pairs each. In each scan, one pair has new lesions."""
    scans = [list(range(k, k + 4)) for k in range(0, 16, 4)]
    has_lesions = [k % 4 == 2 for k in range(16)]
    for seed in range(10):
        assert len(HoldOut(seed, patients=count).choose(has_lesions, scans)) == held_out
    assert HoldOut(0, patients=count).largest(scans) == held_out


def test_groups_of_any_size_are_held_out_with_new_lesions_on_each_side():
    has_lesions = [k in (1, 8, 13) for k in range(14)]  # in three scans
    for seed in range(10):
        for count in range(1, 11):
            hold_out = HoldOut(seed, patients=count)
            held_out = hold_out.choose(has_lesions, SCANS)
            assert count <= len(held_out) <= hold_out.largest(SCANS) < 14
            assert 1 <= sum(has_lesions[k] for k in held_out) <= 2


def test_folds_divide_groups_and_new_lesions_evenly():
    has_lesions = [k in (1, 8, 13) for k in range(14)]
    for seed in range(10):
        dealt = HoldOut(seed, folds=3).all_folds(has_lesions, SCANS)
        assert sorted(k for fold in dealt for k in fold) == list(range(14))
        assert [sum(has_lesions[k] for k in fold) for fold in dealt] == [1, 1, 1]
        assert [sum(group[0] in fold for group in SCANS) for fold in dealt] == [2, 2, 2]
        assert max(map(len, dealt)) <= HoldOut(seed, folds=3).largest(SCANS) == 7


def test_a_fold_may_lack_new_lesions_if_every_run_has_some_to_train_on():
    has_lesions = [True, False, False, True, False, False]
    for seed in range(10):
        dealt = HoldOut(seed, folds=3).all_folds(has_lesions, single_patients(6))
        assert sorted(sum(has_lesions[k] for k in fold) for fold in dealt) == [0, 1, 1]
        for fold, held_out in enumerate(dealt):
            assert (
                HoldOut(seed, folds=3, fold=fold).choose(has_lesions, single_patients(6))
                == held_out
            )
            assert any(has_lesions[k] for k in range(6) if k not in held_out)


def test_folds_are_refused_if_one_run_would_have_no_new_lesion_to_train_on():
    with pytest.raises(
        InputError,
        match=r"folds is 3, but .* for only 1 of the 6 patients\. At least 2 of them are needed "
        r"for any number of folds, .* Add patients with new lesions",
    ):
        HoldOut(0, folds=3).choose([k == 3 for k in range(6)], single_patients(6))
    with pytest.raises(InputError, match=r"1 of the 6 scans and patients .pairs made from"):
        HoldOut(0, folds=2).all_folds([k in (4, 9) for k in range(14)], SCANS)


@pytest.mark.parametrize(("patients", "folds", "largest"), [(40, 5, 8), (16, 5, 4), (5, 5, 1)])
def test_the_largest_fold_is_known_beforehand(patients, folds, largest):
    assert HoldOut(0, folds=folds).largest(single_patients(patients)) == largest
    assert max(map(len, deal_folds([True] * patients, folds, 0))) == largest


def test_too_many_folds_or_held_out_patients_are_refused():
    with pytest.raises(
        InputError,
        match=r"config.data.folds is 6, but there are only 5 patients\. Use at most 5 folds",
    ):
        HoldOut(0, folds=6).largest(single_patients(5))
    with pytest.raises(InputError, match=r"validation_patients is 5; expected 0 to 4"):
        HoldOut(0, patients=5).largest(single_patients(5))
    with pytest.raises(
        InputError,
        match=r"folds is 7, but there are only 6 scans and patients \(pairs made from one scan "
        r"stay together\)\. Use at most 6 folds",
    ):
        HoldOut(0, folds=7).largest(SCANS)
    with pytest.raises(
        InputError,
        match=r"validation_patients is 11; expected 0 to 10, because 4 of the 14 patients are "
        r"pairs made from one scan\. .* Hold out fewer",
    ):
        HoldOut(0, patients=11).largest(SCANS)
