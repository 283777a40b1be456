"""A training that was stopped in any way is resumed in the same process, with the same results."""

import json
import math
import shutil
import signal

import jax
import pytest

from msseg_jax.models.checkpoints import Checkpoints, Progress, restore_for_inference
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import initial_variables
from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import Stopped
from msseg_jax.training import validation
from msseg_jax.training.log import TrainingLog
from msseg_jax.training.validation import Validation
from tests.support import tiny
from tests.support.patients import make_patients
from tests.support.runs import (
    assert_trees_equal,
    build_model,
    final_state,
    kill_at,
    logged,
    newest_step,
    train_run,
)

NOTHING = {"dice": math.nan, "detected": 0, "missed": 0, "false": 0}, None  # scores, picture


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    """Return an uninterrupted run of `small_config`. The tests compare their runs with it."""
    folder = tmp_path_factory.mktemp("whole")
    run, config = RunFolder(folder / "run"), tiny.get_config()
    config.data.root = str(make_patients(folder / "patients"))
    train_run(config, run)
    return run


def shapes_of(config):
    return jax.eval_shape(lambda: initial_variables(build_model(config), 0))


def test_a_continued_run_is_bit_identical_to_an_uninterrupted_one(small_config, whole, tmp_path):
    parts = RunFolder(tmp_path / "parts")
    small_config.train.max_steps = 3
    train_run(small_config, parts)
    small_config.train.max_steps = 6
    train_run(small_config, parts)
    one, one_best = final_state(small_config, whole)
    other, other_best = final_state(small_config, parts)
    assert int(one.step) == int(other.step) == 6
    assert_trees_equal(one.params, other.params)
    assert_trees_equal(one.batch_stats, other.batch_stats)
    assert_trees_equal(one.opt_state, other.opt_state)
    assert one_best == other_best

    assert logged(whole.path, "validation") == logged(parts.path, "validation")
    assert set(logged(whole.path, "validation")) == {3, 6}
    # Steps that are a multiple of 2 or 3 write a line.
    assert logged(whole.path, "loss") == logged(parts.path, "loss")
    assert list(logged(whole.path, "loss")) == [2, 3, 4, 6]
    assert set(logged(whole.path, "patches_per_s")) == {3, 4, 6} | (
        set(logged(whole.path, "patches_per_s")) & {2}
    )


def test_a_run_killed_between_checkpoints_is_continued_bit_identically(
    small_config, tmp_path, monkeypatch
):
    """Kill a run when its best checkpoint is newer than the last one, and so is made again."""
    small_config.train.validate_every_steps = 1
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    train_run(small_config, whole)
    kill_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_run(small_config, killed)
    monkeypatch.undo()
    train_run(small_config, killed)
    (one, one_best), (other, other_best) = (final_state(small_config, r) for r in (whole, killed))
    assert_trees_equal(one.params, other.params)
    assert_trees_equal(one.opt_state, other.opt_state)
    assert one_best == other_best
    steps = []
    for run in (whole, killed):
        with Checkpoints(run.checkpoints / "best") as best:
            steps.append(best.steps())
    assert steps[0] == steps[1]


def test_a_validation_that_a_stop_skipped_is_done_by_the_continued_run(
    small_config, whole, tmp_path, monkeypatch
):
    stopped = RunFolder(tmp_path / "stopped")
    add = TrainingLog.add

    def ask_at_step_3(log, step, metrics):
        add(log, step, metrics)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingLog, "add", ask_at_step_3)
    with pytest.raises(Stopped, match="stored step 3 of 6"):
        train_run(small_config, stopped)
    monkeypatch.undo()
    assert logged(stopped.path, "validation") == {}
    train_run(small_config, stopped)
    assert logged(whole.path, "validation") == logged(stopped.path, "validation")
    assert set(logged(whole.path, "validation")) == {3, 6}
    (one, ours), (other, theirs) = (final_state(small_config, run) for run in (whole, stopped))
    assert ours == theirs == Progress(best_dice=ours.best_dice, validated=6)
    assert_trees_equal((one.params, one.opt_state), (other.params, other.opt_state))


@pytest.mark.parametrize("step", [3, 6])
@pytest.mark.parametrize("stores_every", [3, 100])
def test_a_validation_that_a_stop_interrupted_is_done_by_the_continued_run(
    small_config, tmp_path, monkeypatch, step, stores_every
):
    small_config.data.validation_patients = 2
    small_config.train.checkpoint_every_steps = stores_every
    small_config.predict.threshold = 0.2  # something is found
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    train_run(small_config, whole)
    segment, segmented = validation.segment_volume, []

    def ask_at_the_first(*given, **options):
        segmented.append(newest_step(stopped.path))
        if len(segmented) == asked_at:
            signal.raise_signal(signal.SIGTERM)
        return segment(*given, **options)

    monkeypatch.setattr(validation, "segment_volume", ask_at_the_first)
    asked_at = {3: 1, 6: 3}[step]  # the first patient of that step's validation
    for _ in range(2):
        with pytest.raises(Stopped, match=f"stored step {step} of 6"):
            train_run(small_config, stopped)
        assert len(segmented) == asked_at  # the second patient was skipped
        assert newest_step(stopped.path) == step
        assert step not in logged(stopped.path, "validation")
        asked_at += 1  # the continued run starts with that patient, and is stopped again
    # If a checkpoint is due at that step, it was stored before the validation.
    expected = step if stores_every == 3 or step == 6 else 0
    assert segmented[-2:] == [expected, step]
    monkeypatch.undo()
    train_run(small_config, stopped)

    assert logged(whole.path, "validation") == logged(stopped.path, "validation")
    (one, ours), (other, theirs) = (final_state(small_config, run) for run in (whole, stopped))
    assert ours == theirs == Progress(best_dice=ours.best_dice, validated=6)
    assert ours.best_dice > 0
    assert_trees_equal((one.params, one.opt_state), (other.params, other.opt_state))
    best = [restore_for_inference(run, shapes_of(small_config)) for run in (whole, stopped)]
    assert best[0][1:] == best[1][1:]
    assert best[0][1] == "best"
    assert_trees_equal(best[0][0], best[1][0])


def test_a_run_killed_in_its_last_validation_only_repeats_that_validation(
    small_config, whole, tmp_path, monkeypatch, capsys
):
    killed = RunFolder(tmp_path / "killed")
    call = Validation.__call__

    def die_at_step_6(validate, *given):
        if newest_step(killed.path) == 6:
            raise KeyboardInterrupt
        return call(validate, *given)

    monkeypatch.setattr(Validation, "__call__", die_at_step_6)
    with pytest.raises(KeyboardInterrupt):
        train_run(small_config, killed)
    monkeypatch.undo()
    monkeypatch.setattr(TrainingLog, "add", lambda *_: pytest.fail("all steps are done"))
    capsys.readouterr()
    train_run(small_config, killed)
    assert "continuing after step 6" in capsys.readouterr().out
    assert logged(whole.path, "validation") == logged(killed.path, "validation")
    assert final_state(small_config, whole)[1] == final_state(small_config, killed)[1]


def test_a_stop_during_the_last_validation_is_reported(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Validation, "__call__", lambda *_: (signal.raise_signal(signal.SIGTERM), NOTHING)[1]
    )
    small_config.train.validate_every_steps = 6
    with pytest.raises(Stopped, match="stored step 6 of 6"):
        train_run(small_config, RunFolder(tmp_path / "run"))


def test_a_best_checkpoint_is_stored_only_if_a_lesion_was_found(small_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    small_config.predict.threshold = 0.999  # no voxel exceeds it
    small_config.train.max_steps = 1
    train_run(small_config, run)
    assert restore_for_inference(run, shapes_of(small_config))[1:] == ("last", 1)


def test_the_previous_checkpoint_is_used_if_the_newest_is_damaged(
    small_config, whole, tmp_path, caplog
):
    run = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    newest = run.checkpoints / "last" / "6"
    for file in newest.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    state, _ = final_state(small_config, run)
    assert int(state.step) == 3
    assert "step 6 cannot be read" in caplog.text
    for file in (run.checkpoints / "last" / "3").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(InputError, match="no checkpoint can be read"):
        final_state(small_config, run)


def test_a_finished_run_has_nothing_to_do(small_config, tmp_path, monkeypatch, capsys):
    run = RunFolder(tmp_path / "run")
    small_config.train.max_steps = 1
    train_run(small_config, run)
    before = run.log_file.read_text()
    monkeypatch.setattr(Validation, "__call__", lambda *_: pytest.fail("it was validated again"))
    train_run(small_config, run)
    assert "nothing to do" in capsys.readouterr().out
    assert run.log_file.read_text() == before


def test_changed_numbers_of_a_checkpoint_are_noticed(small_config, whole, tmp_path, caplog):
    run = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    file = next((run.checkpoints / "last" / "6" / "digests").rglob("metadata"))
    digests = json.loads(file.read_text())
    file.write_text(json.dumps(digests | {"model": digests["optimiser"]}))
    state, _ = final_state(small_config, run)
    assert int(state.step) == 3
    assert "step 6 cannot be read" in caplog.text
    assert "the numbers of its model are not those that were stored" in caplog.text


def test_a_damaged_folder_of_checkpoints_is_named(small_config, whole, tmp_path):
    run = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    shutil.rmtree(run.checkpoints / "best", ignore_errors=True)
    for file in run.checkpoints.rglob("_CHECKPOINT_METADATA"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"item_handlers": 3}))
    with pytest.raises(InputError, match=f"{run.checkpoints / 'last'}: cannot be opened"):
        restore_for_inference(run, shapes_of(small_config))
