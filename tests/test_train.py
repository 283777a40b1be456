import math
import signal

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import optax
import pytest

from msseg_jax import device_data, validation
from msseg_jax.checkpoint import Checkpoints, RunError, RunFolder, restore_for_inference
from msseg_jax.config import ConfigError
from msseg_jax.data import dataset
from msseg_jax.data.dataset import DatasetError
from msseg_jax.errors import InputError
from msseg_jax.interruption import Stopped
from msseg_jax.model import build_model, initial_variables
from msseg_jax.parallel import AXIS, check_batch_size, on_every_device, parallel_step
from msseg_jax.train import (
    Schedule,
    TrainState,
    create_state,
    learning_rate,
    make_schedule,
    restore_last,
    train_step,
)
from msseg_jax.training_log import TrainingLog
from msseg_jax.validation import Validation
from tests.conftest import logged, newest_step, save_nifti, train_run

RATE = 0.01
NOTHING = {"dice": math.nan, "detected": 0, "missed": 0, "false": 0}, None  # scores, picture


def random_batch(seed=0, patches=4):
    """A batch in which the targets can be read off the second visit."""
    generator = np.random.default_rng(seed)
    visits = generator.normal(size=(2, patches, 8, 8, 8, 1)).astype(np.float32)
    targets = (visits[1] > 1).astype(np.uint8).repeat(2, axis=-1)
    ids = np.arange(patches, dtype=np.int32)
    return {"time01": visits[0], "time02": visits[1], "targets": targets, "patch_ids": ids}


def on_patches(state, batch, shared):
    """`train_step` on patches that are not packed."""
    return train_step(state, batch, seed=7)


def run_steps(config, devices, steps, compute_dtype="float32"):
    """State and metrics after some steps on the first few devices."""
    devices = jax.devices()[:devices]
    state = create_state(config, build_model(config, AXIS, compute_dtype), lambda step: RATE)
    state = on_every_device(state, devices)
    step = parallel_step(on_patches, devices)
    history = []
    for k in range(steps):
        state, metrics, _ = step(state, random_batch(k))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def assert_trees_close(one, other, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), one, other)


def assert_trees_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_four_devices_give_what_one_gives(small_config):
    one, one_history = run_steps(small_config, 1, 3)
    four, four_history = run_steps(small_config, 4, 3)
    assert_trees_close(one_history, four_history, atol=1e-5)
    assert_trees_close(one.batch_stats, four.batch_stats, atol=1e-5)
    # Adam divides by the gradient's own size, so what counts is that updates of 3 x RATE agree.
    assert_trees_close(one.params, four.params, atol=0.02 * RATE)


def test_the_step_is_adam_on_the_gradient_of_the_batch_loss(small_config):
    """Adam's first update is the sign of the gradient times the learning rate."""
    model = build_model(small_config, axis_name=AXIS)
    before = create_state(small_config, model, lambda step: RATE)
    after, history = run_steps(small_config, 4, 1)
    updates = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, before.params)
    assert max(jax.tree.leaves(updates)) == pytest.approx(RATE, rel=1e-3)
    assert -1 < history[0]["loss"] < 0
    assert history[0]["gradient_norm"] > 0
    assert int(after.step) == 1


def test_the_gradient_is_that_of_the_loss(small_config):
    """Following the gradient for a little way lowers the loss by its norm times the way."""
    small_config.model.dropout_rate = 0.0
    model = build_model(small_config, axis_name=AXIS)
    way = 1e-3
    # Gradient descent whose first step has the length `way` shows the gradient by its effect.
    state = create_state(small_config, model, lambda step: RATE)
    descent = optax.chain(optax.normalize_by_update_norm(), optax.sgd(way))
    state = TrainState.create(
        apply_fn=model.apply, params=state.params, batch_stats=state.batch_stats, tx=descent
    )
    state = on_every_device(state.replace(step=jnp.zeros((), jnp.int32)), jax.devices())
    step = parallel_step(on_patches, jax.devices())
    after, before, _ = step(state, random_batch())
    _, later, _ = step(after, random_batch())
    fall = float(before["loss"] - later["loss"])
    assert fall == pytest.approx(float(before["gradient_norm"]) * way, rel=0.05)


def test_the_network_learns_what_can_be_read_off_the_second_visit(small_config):
    small_config.model.dropout_rate = 0.0  # the small network has no map to spare
    _, history = run_steps(small_config, 4, 200)
    first, last = (np.mean([h["loss"] for h in part]) for part in (history[:5], history[-5:]))
    assert last < first - 0.3


def test_bfloat16_learns_as_float32_does(small_config):
    small_config.model.dropout_rate = 0.0
    small_config.model.widths = (8, 8)
    _, full_history = run_steps(small_config, 4, 60)
    half, half_history = run_steps(small_config, 4, 60, "bfloat16")
    losses = np.array([[h["loss"] for h in history] for history in (full_history, half_history)])
    assert losses[0, -1] < losses[0, 0] - 0.1  # there is something to compare
    # Near to each other all along, and not the same: 8 bits were lost on the way.
    np.testing.assert_allclose(losses[1], losses[0], atol=0.05)
    assert np.abs(losses[1] - losses[0]).max() > 1e-4
    for leaf in jax.tree.leaves((half.params, half.batch_stats, half_history)):
        assert leaf.dtype == np.float32


def test_data_on_the_device_train_to_the_same_bits(small_config, tmp_path, capsys):
    host, device = RunFolder(tmp_path / "host"), RunFolder(tmp_path / "device")
    train_run(small_config, host)
    assert "device-resident" not in capsys.readouterr().out
    small_config.data.device_resident = True
    train_run(small_config, device)
    assert "device-resident data: 0.00 GiB on each device" in capsys.readouterr().out
    one, other = (final_state(small_config, run)[0] for run in (host, device))
    assert_trees_equal((one.params, one.opt_state), (other.params, other.opt_state))


def test_a_device_without_room_for_the_data_has_patches_cut_on_the_host(
    small_config, tmp_path, monkeypatch, caplog
):
    small_config.data.device_resident = True
    small_config.train.max_steps = 1
    monkeypatch.setattr(device_data, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(device_data, "read_volumes", lambda patients: pytest.fail("no room"))
    run = RunFolder(tmp_path / "run")
    train_run(small_config, run)
    assert int(final_state(small_config, run)[0].step) == 1
    assert "that is more than half of what is free: cut on the host" in caplog.text


def test_the_papers_schedule(small_config):
    small_config.data.patches_per_patient = 872
    small_config.train.batch_size = 40
    small_config.train.epochs = 40
    small_config.train.max_steps = 0
    schedule = make_schedule(small_config, training_patients=40)
    assert schedule == Schedule(steps_per_epoch=872, total_steps=34_880)
    rate = learning_rate(small_config, schedule)
    assert float(rate(0)) == float(rate(871)) == pytest.approx(0.004)
    assert float(rate(872)) == pytest.approx(0.004 * 0.9)
    assert float(rate(34_879)) == pytest.approx(0.004 * 0.9**39, rel=1e-4)


def test_refuses_a_batch_larger_than_an_epoch(small_config):
    small_config.train.batch_size = 400
    with pytest.raises(ConfigError, match="batch_size is 400; wanted at most 16"):
        make_schedule(small_config, training_patients=1)


def test_refuses_a_batch_that_does_not_divide_by_the_devices():
    with pytest.raises(ValueError, match=r"batch_size is 6, .* 4 devices; .* such as 4 or 8"):
        check_batch_size(6, 4)


def final_state(config, run):
    state = create_state(config, build_model(config, axis_name=AXIS), lambda step: RATE)
    with Checkpoints(run.checkpoints / "last", keep=2) as last:
        return restore_last(last, state)


def test_stopped_and_continued_is_bit_identical_to_uninterrupted(small_config, tmp_path):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    train_run(small_config, whole)
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
    # Every third step writes a line, and so does every second.
    assert logged(whole.path, "loss") == logged(parts.path, "loss")
    assert list(logged(whole.path, "loss")) == [2, 3, 4, 6]
    assert set(logged(whole.path, "patches_per_s")) == {3, 4, 6} | (
        set(logged(whole.path, "patches_per_s")) & {2}
    )


def test_killed_between_checkpoints_is_bit_identical_too(small_config, tmp_path, monkeypatch):
    """The best checkpoint is then ahead of the last, and is made again."""
    small_config.train.validate_every_steps = 1
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    train_run(small_config, whole)
    add = TrainingLog.add

    def die_at_step_5(log, step, metrics):
        if step == 5:
            raise KeyboardInterrupt
        add(log, step, metrics)

    monkeypatch.setattr(TrainingLog, "add", die_at_step_5)
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


def test_a_validation_that_a_stop_left_no_time_for_is_made_up_for(
    small_config, tmp_path, monkeypatch
):
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    train_run(small_config, whole)
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
    assert ours == theirs == {"best_dice": ours["best_dice"], "validated": 6}
    assert_trees_equal((one.params, one.opt_state), (other.params, other.opt_state))


@pytest.mark.parametrize("step", [3, 6])
@pytest.mark.parametrize("stores_every", [3, 100])
def test_a_validation_is_given_up_when_asked_to_stop_and_made_up_for(
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
        assert len(segmented) == asked_at  # the second patient was left out
        assert newest_step(stopped.path) == step
        assert step not in logged(stopped.path, "validation")
        asked_at += 1  # the run that goes on begins with that patient, and is asked again
    # Where the state is stored at that step anyway it was so before the validation.
    expected = step if stores_every == 3 or step == 6 else 0
    assert segmented[-2:] == [expected, step]
    monkeypatch.undo()
    train_run(small_config, stopped)

    assert logged(whole.path, "validation") == logged(stopped.path, "validation")
    (one, ours), (other, theirs) = (final_state(small_config, run) for run in (whole, stopped))
    assert ours == theirs == {"best_dice": ours["best_dice"], "validated": 6}
    assert ours["best_dice"] > 0
    assert_trees_equal((one.params, one.opt_state), (other.params, other.opt_state))
    best = [restore_for_inference(run, shapes_of(small_config)) for run in (whole, stopped)]
    assert best[0][1:] == best[1][1:]
    assert best[0][1] == "best"
    assert_trees_equal(best[0][0], best[1][0])


def test_a_run_killed_in_its_last_validation_has_only_that_to_do(
    small_config, tmp_path, monkeypatch, capsys
):
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    train_run(small_config, whole)
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


def test_a_stop_during_the_last_validation_is_not_forgotten(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Validation, "__call__", lambda *_: (signal.raise_signal(signal.SIGTERM), NOTHING)[1]
    )
    small_config.train.validate_every_steps = 6
    with pytest.raises(Stopped, match="stored step 6 of 6"):
        train_run(small_config, RunFolder(tmp_path / "run"))


def test_best_is_stored_only_where_something_was_found(small_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    small_config.predict.threshold = 0.999  # nothing is
    small_config.train.max_steps = 1
    train_run(small_config, run)
    assert restore_for_inference(run, shapes_of(small_config))[1:] == ("last", 1)


def shapes_of(config):
    return jax.eval_shape(lambda: initial_variables(build_model(config), 0))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(small_config, tmp_path, caplog):
    run = RunFolder(tmp_path / "run")
    train_run(small_config, run)
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
    with pytest.raises(RunError, match="no checkpoint can be read"):
        final_state(small_config, run)


def test_a_finished_run_has_nothing_to_do(small_config, tmp_path, monkeypatch, capsys):
    run = RunFolder(tmp_path / "run")
    small_config.train.max_steps = 1
    train_run(small_config, run)
    before = run.log_file.read_text()
    monkeypatch.setattr(Validation, "__call__", lambda *_: pytest.fail("it is validated"))
    train_run(small_config, run)
    assert "nothing to do" in capsys.readouterr().out
    assert run.log_file.read_text() == before


def test_a_run_of_another_configuration_is_refused_and_the_fields_are_named(small_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    small_config.train.max_steps = 1
    train_run(small_config, run)
    small_config.train.log_every_steps = 7  # changes nothing that is computed
    run.create_or_continue(small_config)
    small_config.train.learning_rate = 0.1
    small_config.model.widths = (3, 3)
    with pytest.raises(RunError) as error:
        run.create_or_continue(small_config)
    message = str(error.value)
    assert "config.train.learning_rate is 0.1, the run has 0.004" in message
    assert "config.model.widths is [3, 3], the run has [3, 2]" in message
    assert "log_every_steps" not in message


def test_a_run_that_was_refused_can_be_begun_with_what_the_message_asks_for(small_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    small_config.model.targets = 5  # the folder has two
    with pytest.raises(DatasetError, match="ground_truth_expert4"):
        train_run(small_config, run)
    assert not run.config_file.exists()
    small_config.model.targets = 2
    small_config.train.batch_size = 400
    with pytest.raises(ConfigError, match="batch_size is 400; wanted at most 48"):
        train_run(small_config, run)
    small_config.train.batch_size = 4
    small_config.train.max_steps = 1
    train_run(small_config, run)


@pytest.mark.parametrize("name", [dataset.TIME01, dataset.EXPERT.format(1)])
def test_a_run_whose_data_changed_is_refused(small_config, tmp_path, patients_root, name):
    run = RunFolder(tmp_path / "run")
    small_config.train.max_steps = 1
    train_run(small_config, run)
    moved = patients_root.rename(tmp_path / "moved")  # the same data elsewhere are no other data
    small_config.data.root = str(moved)
    train_run(small_config, run)
    path = moved / "patient_1" / name
    array = np.asarray(nib.load(path).dataobj).copy()
    array[6, 7, 9] = 0
    save_nifti(path, array)
    with pytest.raises(RunError, match=r"begun with other data than .*moved"):
        train_run(small_config, run)


def test_a_run_whose_voxels_grew_is_refused(small_config, tmp_path, patients_root):
    run = RunFolder(tmp_path / "run")
    small_config.train.max_steps = 1
    train_run(small_config, run)
    for path in (patients_root / "patient_1").iterdir():
        save_nifti(path, np.asarray(nib.load(path).dataobj), spacing_mm=(1.0, 1.0, 0.9))
    with pytest.raises(RunError, match="begun with other data than"):
        train_run(small_config, run)


def test_a_damaged_configuration_is_named(small_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    small_config.train.max_steps = 1
    train_run(small_config, run)
    run.config_file.write_text('{"seed": 0')
    with pytest.raises(InputError, match=r"config.json: is damaged"):
        train_run(small_config, run)


def test_a_work_folder_that_cannot_be_written_is_refused(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"--workdir=.*file/run: .*wanted a folder to write in"):
        RunFolder(tmp_path / "file" / "run").create_or_continue(small_config)
