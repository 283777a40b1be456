"""One training step, the learning rate over the steps, and the actions after a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msseg_jax.configuration.files import typed
from msseg_jax.system.errors import InputError
from msseg_jax.training.devices import AXIS, check_batch_size, on_every_device, parallel_step
from msseg_jax.training.schedule import Schedule, learning_rate
from msseg_jax.training.step import TrainState, create_state
from tests.support.runs import build_model
from tests.support.steps import RATE, on_patches, random_batch, run_steps


def assert_trees_close(one, other, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), one, other)


def test_four_devices_give_the_same_result_as_one(small_config):
    one, one_history = run_steps(small_config, 1, 3)
    four, four_history = run_steps(small_config, 4, 3)
    assert_trees_close(one_history, four_history, atol=1e-5)
    assert_trees_close(one.batch_stats, four.batch_stats, atol=1e-5)
    # Adam normalises by the size of the gradient. Compare relative to the total update, 3 x RATE.
    assert_trees_close(one.params, four.params, atol=0.02 * RATE)


def test_the_step_is_adam_on_the_gradient_of_the_batch_loss(small_config):
    """Check the size of Adam's first update: the learning rate, with the sign of the gradient."""
    model = build_model(small_config, axis_name=AXIS)
    before = create_state(model, lambda step: RATE)
    after, history = run_steps(small_config, 4, 1)
    updates = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, before.params)
    assert max(jax.tree.leaves(updates)) == pytest.approx(RATE, rel=1e-3)
    assert -1 < history[0]["loss"] < 0
    assert history[0]["gradient_norm"] > 0
    assert int(after.step) == 1


def test_the_gradient_is_that_of_the_loss(small_config):
    """Check that a short step along the gradient lowers the loss by the norm times the step."""
    small_config.model.dropout_rate = 0.0
    model = build_model(small_config, axis_name=AXIS)
    length = 1e-3
    # A step of gradient descent with this length shows the effect of the gradient on the loss.
    state = create_state(model, lambda step: RATE)
    descent = optax.chain(optax.normalize_by_update_norm(), optax.sgd(length))
    state = TrainState.create(
        apply_fn=model.apply, params=state.params, batch_stats=state.batch_stats, tx=descent
    )
    state = on_every_device(state.replace(step=jnp.zeros((), jnp.int32)), jax.devices())
    step = parallel_step(on_patches, jax.devices())
    after, before, _ = step(state, random_batch())
    _, later, _ = step(after, random_batch())
    fall = float(before["loss"] - later["loss"])
    assert fall == pytest.approx(float(before["gradient_norm"]) * length, rel=0.05)


def test_the_network_learns_targets_that_depend_on_the_second_visit(small_config):
    small_config.model.dropout_rate = 0.0  # the network is too small for dropout
    _, history = run_steps(small_config, 4, 200)
    first, last = (np.mean([h["loss"] for h in part]) for part in (history[:5], history[-5:]))
    assert last < first - 0.3


def test_bfloat16_learns_like_float32(small_config):
    small_config.model.dropout_rate = 0.0
    small_config.model.widths = (8, 8)
    _, full_history = run_steps(small_config, 4, 60)
    half, half_history = run_steps(small_config, 4, 60, "bfloat16")
    losses = np.array([[h["loss"] for h in history] for history in (full_history, half_history)])
    assert losses[0, -1] < losses[0, 0] - 0.1  # the loss falls in the reference
    # The losses stay close, but they differ, because bfloat16 is less precise.
    np.testing.assert_allclose(losses[1], losses[0], atol=0.05)
    assert np.abs(losses[1] - losses[0]).max() > 1e-4
    for leaf in jax.tree.leaves((half.params, half.batch_stats, half_history)):
        assert leaf.dtype == np.float32


def test_the_schedule_of_the_paper(small_config):
    small_config.data.patches_per_patient = 872
    small_config.train.batch_size = 40
    small_config.train.epochs = 40
    small_config.train.max_steps = 0
    config = typed(small_config)
    schedule = Schedule.of(config.train, config.data.patches_per_patient, patients=40)
    assert (schedule.per_epoch, schedule.total) == (872, 34_880)
    rate = learning_rate(config.train, schedule)
    assert float(rate(0)) == float(rate(871)) == pytest.approx(0.004)
    assert float(rate(872)) == pytest.approx(0.004 * 0.9)
    assert float(rate(34_879)) == pytest.approx(0.004 * 0.9**39, rel=1e-4)


def test_a_batch_larger_than_an_epoch_is_refused(small_config):
    small_config.train.batch_size = 400
    with pytest.raises(InputError, match=r"batch_size is 400, .* Use at most 16\."):
        Schedule.of(typed(small_config).train, patches_per_patient=16, patients=1)


def test_a_batch_size_that_is_no_multiple_of_the_devices_is_refused():
    with pytest.raises(ValueError, match=r"batch_size is 6, .* 4 devices\. .* such as 4 or 8\."):
        check_batch_size(6, 4)


def test_the_actions_after_a_step_depend_on_its_number(small_config):
    settings = typed(small_config).train  # 6 steps: a line every 2, scores and a checkpoint every 3
    schedule = Schedule.of(settings, patches_per_patient=16, patients=3, held_out=1)

    def done(actions):
        return [
            name for name in ("writes", "stores", "validates", "stops") if getattr(actions, name)
        ]

    assert [done(schedule.after(step, asked_to_stop=False)) for step in range(1, 7)] == [
        [], ["writes"], ["writes", "stores", "validates"], ["writes"], [],
        ["writes", "stores", "validates"],
    ]  # fmt: skip
    # A run that is asked to stop stores a checkpoint. It skips the validation, which may be long.
    assert done(schedule.after(1, asked_to_stop=True)) == ["writes", "stores", "stops"]
    assert done(schedule.after(3, asked_to_stop=True)) == ["writes", "stores", "stops"]
    # The last step ends the run in any case.
    assert done(schedule.after(6, asked_to_stop=True)) == ["writes", "stores", "validates"]
    without = Schedule.of(settings, patches_per_patient=16, patients=3)
    assert not any(without.after(step, asked_to_stop=False).validates for step in range(1, 7))
