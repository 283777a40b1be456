"""The training loss: batch Dice over all targets, patches and voxels together."""

import jax
import jax.numpy as jnp

EPSILON = 1e-5  # added to numerator and denominator, Fenneteau et al. 2021, equation 1
FACTOR = -2.0  # as in the paper; a perfect prediction of a non-empty batch then gives -1


def batch_dice_loss(
    probabilities: jax.Array, targets: jax.Array, axis_name: str | None = None
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

    Returns:
      A float32 scalar in [-2, 0), the same on every device.

    Raises:
      ValueError: The two shapes differ.
    """
    if probabilities.shape != targets.shape:
        raise ValueError(
            f"probabilities have shape {probabilities.shape}, targets {targets.shape}; expected "
            "the same shape (B, D, H, W, T) for both"
        )
    probabilities = probabilities.astype(jnp.float32)
    targets = targets.astype(jnp.float32)
    overlap = jnp.sum(probabilities * targets)
    total = jnp.sum(probabilities) + jnp.sum(targets)
    if axis_name is not None:
        overlap, total = jax.lax.psum((overlap, total), axis_name)
    return FACTOR * (EPSILON + overlap) / (EPSILON + total)
