"""The training losses: batch Dice over all targets together, and the mean over the targets."""

import jax
import jax.numpy as jnp

EPSILON = 1e-5  # added to numerator and denominator, Fenneteau et al. 2021, equation 1
FACTOR = -2.0  # as in the paper; a perfect prediction of a non-empty batch then gives -1


def batch_dice_loss(
    probabilities: jax.Array,
    targets: jax.Array,
    axis_name: str | None = None,
    known: jax.Array | None = None,
) -> jax.Array:
    """Return the batch Dice loss of Fenneteau et al. 2021, equation 1.

    The loss is `-2 (1e-5 + sum P Q) / (1e-5 + sum (P + Q))`. Each sum runs over all targets, all
    patches of the global batch and all voxels, so there is a single ratio for the whole batch. A
    patch without a lesion therefore has no separate Dice, but its false positives still increase
    the denominator and so the loss.

    Two values follow from the formula as it was published, and are kept. A perfect prediction of a
    non-empty batch gives (very nearly) -1. An empty prediction of an empty batch gives -2.

    Args:
      probabilities: (B, D, H, W, T), in [0, 1].
      targets: (B, D, H, W, T), 0 or 1, any dtype.
      axis_name: the `pmap` axis over which the batch is divided. The sums are taken over this axis
        before the division. The mean of one Dice ratio per device would be a different loss.
      known: (B, T) bool. A target that is not known for a patch adds to no sum. None: all are.

    Returns:
      A float32 scalar in [-2, 0), the same on every device.

    Raises:
      ValueError: The two shapes differ.
    """
    probabilities, targets = _checked(probabilities, targets, known)
    overlap = jnp.sum(probabilities * targets)
    total = jnp.sum(probabilities) + jnp.sum(targets)
    if axis_name is not None:
        overlap, total = jax.lax.psum((overlap, total), axis_name)
    return FACTOR * (EPSILON + overlap) / (EPSILON + total)


def each_target_loss(
    probabilities: jax.Array,
    targets: jax.Array,
    axis_name: str | None = None,
    known: jax.Array | None = None,
) -> jax.Array:
    """Return the mean over the targets of one batch Dice loss each.

    So a target with few voxels counts as much as one with many. A target that is not known for any
    patch of the global batch does not count in the mean. If none is known, the loss is 0.

    A known target without a voxel in the whole batch gives -2 if the prediction is empty, too, and
    hardly any gradient if it is not. This follows from the published formula; see
    `batch_dice_loss`, which also describes the arguments.

    Returns:
      A float32 scalar in [-2, 0], the same on every device.

    Raises:
      ValueError: The two shapes differ.
    """
    probabilities, targets = _checked(probabilities, targets, known)
    if known is None:
        known = jnp.ones((len(targets), targets.shape[-1]), bool)
    axes = (0, 1, 2, 3)
    overlap = jnp.sum(probabilities * targets, axes)  # (T,), like the next two
    total = jnp.sum(probabilities, axes) + jnp.sum(targets, axes)
    patches = jnp.sum(known, 0, dtype=jnp.float32)
    if axis_name is not None:
        overlap, total, patches = jax.lax.psum((overlap, total, patches), axis_name)
    losses = FACTOR * (EPSILON + overlap) / (EPSILON + total)
    counts = patches > 0
    return jnp.sum(jnp.where(counts, losses, 0)) / jnp.maximum(jnp.sum(counts), 1)


def _checked(
    probabilities: jax.Array, targets: jax.Array, known: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Return both as float32, with 0 where a target is not known."""
    if probabilities.shape != targets.shape:
        raise ValueError(
            f"probabilities have shape {probabilities.shape}, targets {targets.shape}; expected "
            "the same shape (B, D, H, W, T) for both"
        )
    probabilities = probabilities.astype(jnp.float32)
    targets = targets.astype(jnp.float32)
    if known is None:
        return probabilities, targets
    # A choice and not a product: it gives no gradient to the probabilities that do not count.
    counts = known[:, None, None, None, :]
    return jnp.where(counts, probabilities, 0), jnp.where(counts, targets, 0)
