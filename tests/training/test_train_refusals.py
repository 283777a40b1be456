"""Reasons to refuse a run's folder: another configuration, other data, or damage."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli.main import main
from msseg_jax.configuration.files import typed
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.errors import InputError
from msseg_jax.training.experiment import run_experiment
from msseg_jax.volumes import layout
from tests.support import tiny
from tests.support.patients import make_patients, save_nifti
from tests.support.runs import train_run


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> RunFolder:
    """Return a run of one step of `small_config`. Each test makes a copy of it."""
    folder = tmp_path_factory.mktemp("begun")
    run, config = RunFolder(folder / "run"), tiny.get_config()
    config.data.root = str(make_patients(folder / "patients"))
    config.train.max_steps = 1
    train_run(config, run)
    return run


def copy_of(run: RunFolder, folder) -> RunFolder:
    return RunFolder(shutil.copytree(run.path, folder / "run"))


def test_a_run_of_another_configuration_is_refused_and_the_fields_are_named(
    small_config, begun, tmp_path
):
    run = copy_of(begun, tmp_path)
    small_config.train.max_steps = 1
    small_config.train.log_every_steps = 7  # does not affect the results
    run.create_or_continue(typed(small_config))
    small_config.train.learning_rate = 0.1
    small_config.model.widths = (3, 3)
    with pytest.raises(InputError) as error:
        run.create_or_continue(typed(small_config))
    message = str(error.value)
    assert "config.train.learning_rate is 0.1, but the run has 0.004" in message
    assert "config.model.widths is [3, 3], but the run has [3, 2]" in message
    assert "log_every_steps" not in message


@pytest.mark.parametrize("place", [".", "run", "patient_1/run"])
def test_a_run_among_the_patients_is_refused_before_anything_is_written(
    patients_root, capsys, place
):
    before = sorted(patients_root.rglob("*"))
    flags = [f"--config.data.root={patients_root}", f"--workdir={patients_root / place}"]
    assert main(["train", "--config=msseg2", *flags]) == 1
    assert "--workdir lies in config.data.root, among the patients" in capsys.readouterr().err
    assert sorted(patients_root.rglob("*")) == before


def test_a_refused_run_can_start_after_the_configuration_is_corrected(small_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    small_config.model.targets = 5  # the patients have two
    with pytest.raises(InputError, match="ground_truth_expert4"):
        train_run(small_config, run)
    assert not run.config_file.exists()
    small_config.model.targets = 2
    small_config.train.batch_size = 400
    with pytest.raises(InputError, match=r"batch_size is 400, .* Use at most 48\."):
        train_run(small_config, run)
    small_config.train.batch_size = 4
    small_config.train.max_steps = 1
    train_run(small_config, run)


@pytest.mark.parametrize("name", [layout.TIME01, layout.EXPERT.format(1)])
def test_a_run_with_changed_data_is_refused(small_config, begun, tmp_path, patients_root, name):
    run = copy_of(begun, tmp_path)
    small_config.train.max_steps = 1
    moved = patients_root.rename(tmp_path / "moved")  # moved data count as the same
    small_config.data.root = str(moved)
    train_run(small_config, run)
    path = moved / "patient_1" / name
    array = np.asarray(nib.load(path).dataobj).copy()
    array[6, 7, 9] = 0
    save_nifti(path, array)
    with pytest.raises(InputError, match=r"started with other data than .*moved"):
        train_run(small_config, run)


def test_a_run_with_changed_voxel_spacing_is_refused(small_config, begun, tmp_path, patients_root):
    run = copy_of(begun, tmp_path)
    small_config.train.max_steps = 1
    for path in (patients_root / "patient_1").iterdir():
        save_nifti(path, np.asarray(nib.load(path).dataobj), spacing_mm=(1.0, 1.0, 0.9))
    with pytest.raises(InputError, match="started with other data than"):
        train_run(small_config, run)


def test_a_damaged_configuration_is_named(small_config, begun, tmp_path):
    run = copy_of(begun, tmp_path)
    small_config.train.max_steps = 1
    run.config_file.write_text('{"seed": 0')
    with pytest.raises(InputError, match=r"config.json: is damaged"):
        train_run(small_config, run)


@pytest.mark.parametrize("name", ["log.jsonl", "config.json", "checkpoints", "tensorboard"])
def test_a_path_of_the_wrong_kind_in_the_work_folder_is_named(small_config, tmp_path, name):
    place = tmp_path / "run" / name
    place.parent.mkdir()
    is_file = "." in name
    place.mkdir() if is_file else place.write_text("")
    kinds = "a folder; expected a file" if is_file else "a file; expected a folder"
    with pytest.raises(InputError, match=f"run/{name}: is {kinds} of the run, or nothing"):
        run_experiment(typed(small_config), place.parent)
    assert [path.name for path in place.parent.iterdir()] == [name]


def test_unfinished_files_of_a_killed_run_are_deleted(small_config, begun, tmp_path):
    run = copy_of(begun, tmp_path)
    small_config.train.max_steps = 1
    (run.evaluation).mkdir()
    left = [
        folder / ".partial-0123456789ab.json"
        for folder in (run.path, run.evaluation, run.checkpoints / "last" / "1" / "progress")
    ]
    own = run.path / ".partial-notes.txt"  # not made by this program
    for path in (*left, own):
        path.write_text("half")
    run_experiment(typed(small_config), run.path)
    assert not any(path.exists() for path in left)
    assert own.read_text() == "half"


@pytest.mark.parametrize("name", ["--workdir", "--config.data.root"])
def test_paths_that_are_no_text_are_refused_before_any_work(tmp_path, capsys, name):
    given = f"{tmp_path}/a\udcff"  # as Python gives the byte ff
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config=msseg2", f"--config.data.root={tmp_path}", f"{name}={given}"])
    assert ended.value.code == 2
    shown = f"{name}={tmp_path}/a\\udcff: contains bytes that are not valid UTF-8; expected a path"
    assert shown in capsys.readouterr().err


def test_a_work_folder_that_cannot_be_written_is_refused(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--workdir=.*file/run: .*expected a folder to write in"):
        RunFolder(tmp_path / "file" / "run").create_or_continue(typed(small_config))
