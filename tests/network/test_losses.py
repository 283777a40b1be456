import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.network.losses import batch_dice_loss, each_target_loss


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


def three_targets():
    """Return probabilities and targets of two patches of 1 x 1 x 2 voxels, and what is known."""
    probabilities = np.array([[[0.5, 0.25, 0.5], [1, 0.75, 0.1]], [[0.2, 0.3, 0.4], [0.6, 0.9, 1]]])
    targets = np.array([[[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [1, 1, 0]]], np.uint8)
    known = np.array([[True, True, False], [True, False, False]])
    shape = (2, 1, 1, 2, 3)
    return (
        jnp.asarray(probabilities.reshape(shape), jnp.float32),
        jnp.asarray(targets.reshape(shape)),
        jnp.asarray(known),
    )


# Sums over what is known in `three_targets`, for the first two targets: overlaps 0.5 + 1 + 0.6 and
# 0.75; probabilities 0.5 + 1 + 0.2 + 0.6 and 0.25 + 0.75; voxels 3 and 1.
FIRST, SECOND = (2.1, 2.3 + 3), (0.75, 1 + 1)


def test_an_unknown_target_adds_to_no_sum():
    probabilities, targets, known = three_targets()
    expected = -2 * (1e-5 + FIRST[0] + SECOND[0]) / (1e-5 + FIRST[1] + SECOND[1])
    loss = batch_dice_loss(probabilities, targets, known=known)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_each_target_has_its_own_ratio_and_one_that_nobody_knows_does_not_count():
    probabilities, targets, known = three_targets()
    ratios = [-2 * (1e-5 + overlap) / (1e-5 + total) for overlap, total in (FIRST, SECOND)]
    loss = each_target_loss(probabilities, targets, known=known)
    assert float(loss) == pytest.approx(sum(ratios) / 2, rel=1e-6)
    assert float(each_target_loss(probabilities, targets, known=known & False)) == 0


def test_without_unknown_targets_the_mean_is_over_all_ratios():
    probabilities, targets, known = three_targets()
    own = [
        float(batch_dice_loss(probabilities[..., k : k + 1], targets[..., k : k + 1]))
        for k in range(3)
    ]
    assert float(each_target_loss(probabilities, targets)) == pytest.approx(np.mean(own), rel=1e-6)
    loss = each_target_loss(probabilities, targets, known=known | True)
    assert float(loss) == pytest.approx(np.mean(own), rel=1e-6)


@pytest.mark.parametrize("loss", [batch_dice_loss, each_target_loss])
def test_probabilities_of_unknown_targets_have_no_gradient_and_no_influence(loss):
    probabilities, targets, known = three_targets()
    counts = np.broadcast_to(np.asarray(known)[:, None, None, None, :], probabilities.shape)
    gradient = jax.grad(loss)
    first = np.asarray(gradient(probabilities, targets, None, known))
    assert (first[~counts] == 0).all()
    assert (first[counts] != 0).all()
    others = jnp.where(counts, probabilities, 0.77)
    np.testing.assert_array_equal(gradient(others, targets, None, known), first)
    assert float(loss(others, targets, None, known)) == float(
        loss(probabilities, targets, None, known)
    )


def test_the_ratios_are_those_of_all_devices_and_a_target_may_be_known_on_one_only():
    generator = np.random.default_rng(0)
    probabilities = generator.random((4, 1, 3, 3, 3, 3), dtype=np.float32)
    targets = generator.integers(0, 2, probabilities.shape).astype(np.uint8)
    known = np.zeros((4, 1, 3), bool)
    known[:, :, 0] = known[2, :, 1] = True
    spread = jax.pmap(lambda p, t, k: each_target_loss(p, t, "d", k), axis_name="d")(
        probabilities, targets, known
    )
    together = each_target_loss(
        *(jnp.asarray(array[:, 0]) for array in (probabilities, targets)),
        known=jnp.asarray(known[:, 0]),
    )
    np.testing.assert_allclose(spread, together, rtol=1e-6)
    second = batch_dice_loss(*(jnp.asarray(a[2][..., 1:2]) for a in (probabilities, targets)))
    first = batch_dice_loss(*(jnp.asarray(a[:, 0][..., :1]) for a in (probabilities, targets)))
    assert float(together) == pytest.approx((float(first) + float(second)) / 2, rel=1e-6)
