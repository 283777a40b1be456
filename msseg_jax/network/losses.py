"""The training loss: batch Dice over every target, patch and voxel at once."""

import jax
import jax.numpy as jnp

EPSILON = 1e-5  # added above and below the fraction, Fenneteau et al. 2021, equation 1
FACTOR = -2.0  # the paper's -2; with it a perfect, non-empty batch scores -1


def batch_dice_loss(
    probabilities: jax.Array, targets: jax.Array, axis_name: str | None = None
) -> jax.Array:
    """Return the batch Dice loss of Fenneteau et al. 2021, equation 1.

    It is `-2 (1e-5 + sum P Q) / (1e-5 + sum (P + Q))`; each sum runs over all targets, all patches
    of the global batch and all voxels. There is one ratio for the whole batch: a patch without a
    lesion has no Dice of its own, but still pushes false positives down through the denominator.

    Two values follow from the formula as published, and are kept: a perfect prediction of a
    non-empty batch gives (very nearly) -1, and an empty batch predicted empty gives -2.

    Args:
      probabilities: (B, D, H, W, T), in [0, 1].
      targets: (B, D, H, W, T), 0 or 1, any dtype.
      axis_name: the `pmap` axis over which the batch is spread. The sums run over it before the
        division, because the mean of the devices' own Dice ratios would be another loss.

    Returns:
      A float32 scalar in [-2, 0), the same on every device.

    Raises:
      ValueError: the two shapes differ.
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
