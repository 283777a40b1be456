"""The folder of a cross-validation."""

import pytest

from msseg_jax.models.folds import Folds, runs_of
from msseg_jax.system.errors import InputError


@pytest.fixture
def folds(tmp_path):
    folds = Folds(tmp_path / "cv")
    folds.path.mkdir()
    assert not folds.exist
    folds.save([[f"patient_{k}", f"patient_{k + 20}"] for k in range(11)])
    return folds


def test_saved_folds_are_loaded_in_the_order_of_their_numbers(folds):
    assert folds.exist
    assert folds.load()[10] == ["patient_10", "patient_30"]  # sorted by number, not by name
    assert len(folds.load()) == 11


def test_the_folder_of_a_cross_validation_refers_to_its_runs(folds, tmp_path):
    own_runs = [folds.path / f"fold_{k}" for k in range(11)]
    assert runs_of([folds.path]) == own_runs
    assert runs_of([tmp_path / "a", folds.path]) == [tmp_path / "a", *own_runs]
    assert runs_of([own_runs[3], tmp_path / "a"]) == [own_runs[3], tmp_path / "a"]


def test_for_a_patient_only_the_run_that_held_it_out_is_returned(folds, tmp_path):
    assert runs_of([folds.path], "patient_24") == [folds.path / "fold_4"]
    assert len(runs_of([folds.path], "stranger")) == 11
    other = tmp_path / "a"
    assert runs_of([other, folds.path], "patient_4") == [other, folds.path / "fold_4"]


def test_a_run_given_twice_is_refused(folds):
    with pytest.raises(InputError, match="fold_2: this model is given twice"):
        runs_of([folds.path, folds.path / ".." / "cv" / "fold_2"])
