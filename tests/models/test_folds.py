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


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            '{"fold_0": ["a"], "fold_2": ["b"]}',
            "it lists fold_0, fold_2; the runs have the folds fold_0 to fold_1",
        ),
        ('{"fold_0": "a"}', "valid list"),
        ("null", "valid dict"),
        ("{}", None),
    ],
)
def test_a_damaged_list_of_folds_is_refused(folds, content, why):
    folds.file.write_text(content)
    if why is None:
        (folds.path / "fold_1").mkdir()
        (folds.path / "fold_1" / "config.json").write_text('{"data": {"folds": 2}}')
        why = "it lists no fold; the runs have 2 folds"
    with pytest.raises(InputError) as error:
        folds.load()
    assert f"{folds.file}: is damaged (" in str(error.value)
    assert why in str(error.value)
    assert "Restore it from a copy, or delete it and run the cross-validation" in str(error.value)


@pytest.mark.parametrize("count", ["1e400", "20000000", '"x"'])
def test_an_absurd_number_of_folds_is_not_counted_up(folds, count):
    (folds.path / "fold_1").mkdir()
    (folds.path / "fold_1" / "config.json").write_text(f'{{"data": {{"folds": {count}}}}}')
    folds.file.write_text('{"fold_0": ["a"], "fold_1": ["b"]}')
    if count == "20000000":
        with pytest.raises(InputError, match="it lists fold_0, fold_1; the runs have 20000000 fol"):
            folds.load()
    else:  # the run itself is refused when it is used
        assert folds.load() == [["a"], ["b"]]
