"""Upsampling, and inputs that a convolution upsamples itself."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def upsample(x: jax.Array) -> jax.Array:
    """Repeat each voxel in a 2x2x2 block: (B, D, H, W, C) -> (B, 2D, 2H, 2W, C)."""
    b, d, h, w, c = x.shape
    x = x[:, :, None, :, None, :, None, :]
    return jnp.broadcast_to(x, (b, d, 2, h, 2, w, 2, c)).reshape(b, 2 * d, 2 * h, 2 * w, c)


def full_sides(inputs: Sequence[jax.Array]) -> tuple[int, ...]:
    """Return (B, D, H, W) of the largest input."""
    return max((x.shape[:4] for x in inputs), key=lambda shape: shape[1:])


def is_half(x: jax.Array, full: tuple[int, ...]) -> bool:
    """Return whether an input has half as many voxels along each axis as (B, D, H, W) `full`."""
    return x.shape[0] == full[0] and tuple(2 * side for side in x.shape[1:4]) == full[1:]


def upsampled(inputs: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Return the inputs in one size, (B, D, H, W, C_i). Those of half size are upsampled."""
    full = full_sides(inputs)
    return tuple(upsample(x) if is_half(x, full) else x for x in inputs)
