import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.network.losses import batch_dice_loss


def test_matches_equation_1_computed_by_hand():
    probabilities = jnp.array([0.5, 0.25, 0.0, 1.0]).reshape(1, 2, 2, 1, 1)
    targets = jnp.array([1, 0, 1, 1], dtype=jnp.uint8).reshape(1, 2, 2, 1, 1)
    # The overlap is 0.5 + 1. The sums are 1.75 and 3.
    expected = -2 * (1e-5 + 1.5) / (1e-5 + 4.75)
    assert float(batch_dice_loss(probabilities, targets)) == pytest.approx(expected, rel=1e-6)


def test_perfect_prediction_is_minus_one_and_empty_batch_minus_two():
    targets = jnp.zeros((2, 4, 4, 4, 3)).at[0, 1:3, 2, 2].set(1)
    assert float(batch_dice_loss(targets, targets)) == pytest.approx(-1, abs=1e-5)
    empty = jnp.zeros_like(targets)
    assert float(batch_dice_loss(empty, empty)) == pytest.approx(-2)


def test_false_positives_in_a_patch_without_lesion_increase_the_loss():
    targets = jnp.zeros((2, 4, 4, 4, 1)).at[0, 1:3].set(1)
    noisy = targets.at[1, 0].set(0.5)
    assert float(batch_dice_loss(noisy, targets)) > float(batch_dice_loss(targets, targets)) + 0.05


def test_the_loss_is_one_ratio_over_all_devices_and_not_a_mean_of_ratios():
    generator = np.random.default_rng(0)
    probabilities = generator.random((4, 1, 3, 3, 3, 2), dtype=np.float32)
    targets = np.zeros_like(probabilities)
    targets[0] = 1  # all lesions on one device
    spread = jax.pmap(lambda p, t: batch_dice_loss(p, t, "d"), axis_name="d")(
        probabilities, targets
    )
    together = batch_dice_loss(jnp.asarray(probabilities[:, 0]), jnp.asarray(targets[:, 0]))
    np.testing.assert_allclose(spread, together, rtol=1e-6)
    own = [float(batch_dice_loss(p, t)) for p, t in zip(probabilities, targets, strict=True)]
    assert abs(np.mean(own) - float(together)) > 0.01


def test_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match=r"\(1, 2, 2, 2, 5\).*\(1, 2, 2, 2, 1\)"):
        batch_dice_loss(jnp.zeros((1, 2, 2, 2, 5)), jnp.zeros((1, 2, 2, 2, 1)))
