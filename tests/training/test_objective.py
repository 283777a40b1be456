"""The objective of a training step: unknown targets, and the loss of the decoder maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.network.losses import batch_dice_loss, each_target_loss
from msseg_jax.network.model import DECODER_MAPS, initial_variables
from msseg_jax.training.devices import AXIS, on_every_device, parallel_step
from msseg_jax.training.objective import Objective
from msseg_jax.training.step import create_state, train_step
from tests.support.runs import build_model, with_random_output
from tests.support.steps import RATE

DECODERS = Objective(2, "changes", "each_target", 0.5)


def random_batch(seed=0, patches=4):
    """Return a batch with the five maps of "changes", of which some are not known."""
    generator = np.random.default_rng(seed)
    visits = generator.normal(size=(2, patches, 8, 8, 8, 1)).astype(np.float32)
    targets = (generator.random((patches, 8, 8, 8, 5)) < 0.2).astype(np.uint8)
    targets[..., 3:] = visits.transpose(1, 2, 3, 4, 0, 5)[..., 0] > 1
    known = np.ones((patches, 5), bool)
    known[0, 1] = known[1, 3] = known[2, 4] = False
    targets *= known[:, None, None, None]
    return {
        "time01": visits[0], "time02": visits[1], "targets": targets, "known": known,
        "patch_ids": np.arange(patches, dtype=np.int32),
    }  # fmt: skip


def run_steps(config, objective, devices, batches, variables=None):
    """Return the last state and the metrics of steps with these batches."""
    config.model.target_set = objective.target_set
    config.model.targets = objective.targets
    devices = jax.devices()[:devices]
    state = create_state(build_model(config, AXIS), lambda step: RATE, variables=variables)
    state = on_every_device(state, devices)

    def on_patches(state, batch, shared):
        return train_step(state, batch, seed=7, objective=objective)

    step, history = parallel_step(on_patches, devices), []
    for batch in batches:
        state, metrics, _ = step(state, batch)
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def test_the_decoder_loss_computed_by_hand():
    """Compare two decoder maps of one voxel, in two patches, with the lesions of each visit."""
    first, second = [[0.5, 0.1], [0.3, 0.9]], [[0.2, 0.6], [0.7, 0.4]]
    maps = jnp.array(first + second, jnp.float32).reshape(4, 1, 1, 1, 2)
    targets = np.zeros((2, 1, 1, 1, 5), np.uint8)
    targets[0, ..., 3] = targets[0, ..., 4] = targets[1, ..., 4] = 1
    known = np.array([[True] * 5, [True, True, True, False, True]])
    objective = Objective(1, "changes", "all_targets", 0.5)
    assert objective.needed_targets == 5
    probabilities = jnp.full((2, 1, 1, 1, 1), 0.25)
    loss, parts = objective(probabilities, maps, {"targets": targets, "known": known}, None)
    # The second patch does not count at the first visit. The lesions are 1 in the other three.
    one = -2 * (1e-5 + 0.5 + 0.2 + 0.7) / (1e-5 + 0.5 + 0.2 + 0.7 + 3)
    two = -2 * (1e-5 + 0.1 + 0.6 + 0.4) / (1e-5 + 0.1 + 0.6 + 0.4 + 3)
    assert float(parts["decoder_loss"]) == pytest.approx((one + two) / 2, rel=1e-6)
    new = -2 * 1e-5 / (1e-5 + 0.5)
    assert float(loss) == pytest.approx(new + 0.5 * (one + two) / 2, rel=1e-6)


def test_the_decoder_loss_reaches_the_segmentation_block(small_config):
    """An untrained output layer is 0, so that nothing else reaches the segmentation block."""
    small_config.model.dropout_rate = 0.0
    small_config.model.target_set = "changes"
    model = build_model(small_config)
    variables, batch = initial_variables(model, 0), random_batch()

    def loss_of(params, objective):
        probabilities, kept = model.apply(
            variables | {"params": params}, batch["time01"], batch["time02"], train=True,
            patch_ids=batch["patch_ids"], rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats", "intermediates"],
        )  # fmt: skip
        (maps,) = kept["intermediates"][DECODER_MAPS]
        return objective(probabilities, maps, batch, None)[0]

    without = Objective(2, "changes", "each_target")
    for objective, reaches in ((without, False), (DECODERS, True)):
        gradients = jax.grad(partial(loss_of, objective=objective))(variables["params"])
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients["segmentation"]))
        assert bool(largest > 1e-3) == reaches
        assert np.abs(gradients["refinement"]["output"]["bias"]).max() > 1e-3


def test_a_step_adds_the_decoder_loss_with_its_weight(small_config):
    small_config.model.dropout_rate = 0.0
    batch = random_batch()
    _, (metrics,) = run_steps(small_config, DECODERS, 1, [batch])
    # An untrained network gives 0.5 everywhere.
    probabilities = np.full((4, 8, 8, 8, 2), 0.5, np.float32)
    new = each_target_loss(probabilities, batch["targets"][..., :2], None, batch["known"][:, :2])
    expected = float(new) + 0.5 * float(metrics["decoder_loss"])
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    assert -1 < float(metrics["decoder_loss"]) < 0
    _, (plain,) = run_steps(small_config, Objective(2, "changes"), 1, [batch])
    assert plain.keys() == {"loss", "gradient_norm"}
    expected = batch_dice_loss(
        probabilities, batch["targets"][..., :2], None, batch["known"][:, :2]
    )
    assert float(plain["loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("objective", [DECODERS, Objective(5, "changes")])
def test_four_devices_give_the_same_result_as_one(small_config, objective):
    batches = [random_batch(k) for k in range(3)]
    one, one_history = run_steps(small_config, objective, 1, batches)
    four, four_history = run_steps(small_config, objective, 4, batches)

    def close(atol):
        return lambda a, b: np.testing.assert_allclose(a, b, atol=atol)

    jax.tree.map(close(1e-5), one_history, four_history)
    jax.tree.map(close(1e-5), one.batch_stats, four.batch_stats)
    jax.tree.map(close(0.02 * RATE), one.params, four.params)


def test_the_voxels_of_unknown_targets_do_not_matter(small_config):
    batch = random_batch()
    other = {**batch, "targets": np.where(batch["known"][:, None, None, None], batch["targets"], 1)}
    assert (other["targets"] != batch["targets"]).any()
    small_config.model.target_set = "changes"
    small_config.model.targets = 2
    variables = initial_variables(build_model(small_config), 0)
    variables = jax.device_get(with_random_output(variables))  # a step donates its state
    one, other = (run_steps(small_config, DECODERS, 1, [b], variables) for b in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, one[1], other[1])
    jax.tree.map(np.testing.assert_array_equal, one[0].params, other[0].params)


def test_the_decoder_loss_trains_the_maps_of_each_visit(small_config):
    small_config.model.dropout_rate = 0.0
    _, history = run_steps(small_config, DECODERS, 4, [random_batch(k) for k in range(100)])
    first, last = (
        np.mean([h["decoder_loss"] for h in part]) for part in (history[:5], history[-5:])
    )
    assert last < first - 0.3
