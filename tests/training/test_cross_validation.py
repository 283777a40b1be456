"""Cross-validation from patients to scores, interrupted and continued."""

import json

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli.main import main
from msseg_jax.configuration.files import typed
from msseg_jax.data import cache
from msseg_jax.models.folds import Folds, runs_of
from msseg_jax.system.errors import InputError
from msseg_jax.training import cross_validation, phantom_data
from msseg_jax.training.cross_validation import cross_validate
from msseg_jax.training.experiment import run_experiment
from msseg_jax.volumes.layout import CONSENSUS, EXPERT, TIME01
from tests.support.patients import SHAPE, save_nifti

PATIENTS = [f"patient_{k}" for k in range(4)]


@pytest.fixture
def config(small_config):
    small_config.data.validation_patients = 0
    small_config.data.folds = 2
    small_config.train.max_steps = 4
    small_config.train.validate_every_steps = 2
    small_config.train.checkpoint_every_steps = 2
    return small_config


@pytest.fixture
def folds(tmp_path):
    return Folds(tmp_path / "cv")


def files(folder):
    """Return content and modification time of every file under a folder."""
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_every_patient_is_scored_by_the_run_that_held_it_out(
    config, folds, tmp_path, monkeypatch, capsys
):
    train, trained = cross_validation.train, []

    def stop_before_the_second_fold(own, *rest):
        if own.data.fold == 1:
            raise KeyboardInterrupt
        return train(own, *rest)

    monkeypatch.setattr(cross_validation, "train", stop_before_the_second_fold)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(typed(config), folds.path)
    first, predicted = files(folds.run(0) / "checkpoints"), files(folds.predictions)
    assert {path.name for path in predicted} == {
        f"{name}{ending}"
        for name in folds.load()[0]
        for ending in (".nii.gz", ".json", "_lesions.nii.gz", "_lesions.csv")
    }

    def count(own, *rest):
        trained.append(own.data.fold)
        return train(own, *rest)

    monkeypatch.setattr(cross_validation, "train", count)
    capsys.readouterr()
    cross_validate(typed(config), folds.path)
    output = capsys.readouterr().out
    # The complete fold is neither trained nor predicted again.
    assert trained == [0, 1]
    assert output.count("all 4 steps of the run are done") == 1
    assert output.count("its held-out patients are already predicted") == 1
    assert files(folds.run(0) / "checkpoints") == first
    assert predicted.items() <= files(folds.predictions).items()

    names = folds.load()
    assert sorted(name for fold in names for name in fold) == PATIENTS
    for fold, held_out in enumerate(names):
        run = folds.run(fold)
        split = json.loads((run / "split.json").read_text())
        assert list(split["validation"]) == held_out
        assert sorted(split["training"]) == sorted(set(PATIENTS) - set(held_out))
        assert json.loads((run / "config.json").read_text())["data"]["fold"] == fold
        # The held-out patients did not select the checkpoint that they evaluate.
        assert not any((run / "checkpoints" / "best").iterdir())
        flags = [
            f"--model={run}",
            f"--dataset={config.data.root}",
            f"--output={tmp_path / f'masks_{fold}'}",
        ]
        assert main(["predict", *flags, f"--probability={tmp_path / run.name}"]) == 0
        for name in held_out:
            single, pooled = (
                np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj)
                for folder in (tmp_path / run.name, folds.probabilities)
            )
            np.testing.assert_array_equal(pooled, single)
            assert single.max() > 0
    evaluation = json.loads((folds.evaluation / "evaluation.json").read_text())
    assert sorted({row["patient"] for row in evaluation["scores"]}) == PATIENTS
    assert evaluation["left_out"] == {}
    assert "3 new lesions found" in output
    page = (folds.evaluation / "report.html").read_text()
    assert all(f"<h2>{name}</h2>" in page for name in PATIENTS)
    assert len(list((folds.path / "cache").rglob("patient_*"))) == 8  # both folds share a cache

    # A fold that was trained further is predicted again.
    config.train.max_steps = 6
    cross_validate(typed(config), folds.path)
    assert not predicted.items() & files(folds.predictions).items()
    message = r"contains a cross-validation\. Use --mode=cross_validate"
    with pytest.raises(InputError, match=message):
        run_experiment(typed(config), folds.path)


def test_a_run_of_another_fold_or_number_of_folds_is_refused(config, folds):
    config.data.fold = 1
    run_experiment(typed(config), folds.run(0))  # fold 1 in the folder of fold 0
    config.data.fold = 0
    message = r"fold_0 contains .*\nconfig.data.fold is 0, but the run has 1"
    with pytest.raises(InputError, match=message):
        cross_validate(typed(config), folds.path)
    assert not folds.exist
    config.data.folds = 3
    with pytest.raises(InputError, match=r"config.data.folds is 3, but the run has 2"):
        cross_validate(typed(config), folds.path)


def test_a_cross_validation_with_changed_patients_is_refused(config, folds, patients_root):
    config.train.max_steps = 1
    cross_validate(typed(config), folds.path)
    before = folds.load()
    (patients_root / PATIENTS[0]).rename(patients_root / "patient_9")
    with pytest.raises(InputError, match=r"folds.json: .* started with other patients"):
        cross_validate(typed(config), folds.path)
    assert folds.load() == before


def test_the_folder_of_a_single_run_is_refused(config, folds):
    run_experiment(typed(config), folds.path)
    with pytest.raises(InputError, match=r"contains a single run\. Use --mode=train"):
        cross_validate(typed(config), folds.path)


def test_phantoms_are_made_once_for_all_folds(config, folds, monkeypatch):
    config.data.phantom_patients = 4
    config.data.root = ""
    made = []

    def make(folder, patients, seed, spacing_mm):
        made.append((patients, seed))
        (folder / "phantom_001").mkdir()
        raise OSError("stop here")

    monkeypatch.setattr(phantom_data, "write_phantoms", make)
    with pytest.raises(OSError, match="stop here"):
        cross_validate(typed(config), folds.path)
    assert made == [(4, 0)]
    assert not folds.path.exists()


@pytest.mark.parametrize(
    ("fold", "count", "message"),
    [
        (0, 0, "config.data.folds is 0 and config.data.fold is 0. --mode=cross_validate trains"),
        (1, 2, "config.data.folds is 2 and config.data.fold is 1. --mode=cross_validate trains"),
        (2, 2, "config.data.fold is 2; expected the number of a fold, from 0 to 1"),
    ],
)
def test_two_or_more_folds_and_no_chosen_fold_are_expected(config, folds, fold, count, message):
    config.data.fold, config.data.folds = fold, count
    with pytest.raises(InputError, match=message):
        cross_validate(typed(config), folds.path)
    assert not folds.path.exists()


def without_lesions(root, *names):
    for name in names:
        for target in (CONSENSUS, EXPERT.format(1)):
            save_nifti(root / name / target, np.zeros(SHAPE, np.uint8))


def test_a_fold_without_new_lesions_is_scored_by_its_false_lesions(
    config, folds, patients_root, capsys
):
    without_lesions(patients_root, "patient_1", "patient_2")
    config.data.folds = 4
    config.predict.threshold = 0.999  # nothing is predicted, so Dice is undefined
    cross_validate(typed(config), folds.path)
    output = capsys.readouterr().out
    assert output.count("1 patient held out, none with new lesions: ") == 2
    assert output.count("validation: Dice -, new lesions detected 0, missed 0, false 0") == 2 * 2
    names = folds.load()
    lesion_free = [k for k, (name,) in enumerate(names) if name in ("patient_1", "patient_2")]
    for fold, (name,) in enumerate(names):
        line = json.loads((folds.run(fold) / "log.jsonl").read_text().splitlines()[-1])
        dice = line["validation"]["dice"]
        assert dice == (None if fold in lesion_free else 0), "JSON has no NaN"
        split = json.loads((folds.run(fold) / "split.json").read_text())
        assert list(split["validation"]) == [name]
    # As in the challenge: without new lesions, there is no F1, only the false lesions.
    rows = {line.split()[0]: line.split()[1:6] for line in output.splitlines() if "mm3" in line}
    assert rows["patient_1"] == rows["patient_2"] == ["-", "-", "0", "0", "0"]
    assert rows["patient_0"] == rows["patient_3"] == ["0.000", "0.000", "0", "1", "0"]
    assert "0 of 2 new lesions found (0 %), 0 false" in output
    scores = json.loads((folds.evaluation / "evaluation.json").read_text())["scores"]
    ours = {row["patient"]: row for row in scores if row["rater"] == "prediction"}
    assert ours["patient_1"]["NbTestedLesions"] == ours["patient_1"]["VolTestedLesions"] == 0
    assert ours["patient_1"]["F1_score"] is None
    assert (folds.evaluation / "report.html").is_file()


@pytest.mark.parametrize("with_lesions", [0, 1])
def test_a_run_without_new_lesions_to_train_on_is_refused_before_anything_is_made(
    config, folds, patients_root, with_lesions
):
    without_lesions(patients_root, *PATIENTS[with_lesions:])
    message = rf"folds is 2, but .* for only {with_lesions} of the 4 patients\. At least 2 of them"
    with pytest.raises(InputError, match=message):
        cross_validate(typed(config), folds.path)
    assert not folds.path.exists()


def test_a_refused_start_leaves_no_empty_folder(config, folds, patients_root):
    (patients_root / "patient_1" / TIME01).write_bytes(b"")
    place = folds.path / "deep" / "cv"
    with pytest.raises(InputError, match="1 of 4 patients cannot be used"):
        cross_validate(typed(config), place)
    # The measurements of the other patients are kept for the next start, and nothing else.
    left = sorted(str(p.relative_to(place)) for p in place.rglob("*"))
    measures = [name for name in left if "measures-" in name]
    assert len(measures) == 3
    assert set(left) - set(measures) == {"cache", f"cache/format-{cache.FORMAT}"}
    config.data.patch_size = 1000
    with pytest.raises(InputError, match="smaller than a patch"):
        cross_validate(typed(config), folds.path / "other")
    assert not (folds.path / "other").exists()


@pytest.mark.parametrize("content", ["null", "[]", '{"kind": "last"', '{"kind": "last"}'])
def test_a_damaged_record_of_a_prediction_is_reported_and_made_again(
    config, folds, tmp_path, content, capsys
):
    config.train.max_steps = 1
    cross_validate(typed(config), folds.path)
    record = folds.run(1) / "predicted.json"
    assert json.loads(record.read_text()) == {"kind": "last", "step": 1}
    record.write_text(content)
    capsys.readouterr()
    cross_validate(typed(config), folds.path)
    output = capsys.readouterr().out
    assert f"{record}: is damaged, so the patients of this fold are predicted again" in output
    assert output.count("its held-out patients are already predicted") == 1
    assert json.loads(record.read_text()) == {"kind": "last", "step": 1}


def test_folds_json_that_lacks_a_fold_gives_no_smaller_ensemble(config, folds):
    config.train.max_steps = 1
    cross_validate(typed(config), folds.path)
    assert len(runs_of([folds.path])) == 2
    names = json.loads(folds.file.read_text())
    folds.file.write_text(json.dumps({"fold_0": names["fold_0"]}))
    message = r"folds.json: is damaged \(it lists fold_0; the runs have 2 folds\)"
    with pytest.raises(InputError, match=message):
        runs_of([folds.path])
    with pytest.raises(InputError, match=message):
        cross_validate(typed(config), folds.path)
    folds.file.unlink()
    cross_validate(typed(config), folds.path)
    assert json.loads(folds.file.read_text()) == names
