"""Batch norm with statistics over all devices.

The method is that of Ioffe and Szegedy, "Batch Normalization", 2015. On a CPU, XLA is slow at
summing over voxels if there are few channels, and needs a different memory layout for these sums
than for the convolution. On a CPU, `native.channel_sums` therefore computes them.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network import native

VOXELS = (0, 1, 2, 3)  # axes of (B, D, H, W, C)

# Values needed for the gradient: x, then its mean, its variance and the scale, (C,) each.
Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
# The normalised x, then its mean and its variance.
Outputs = tuple[jax.Array, jax.Array, jax.Array]


class BatchNorm(nn.Module):
    """Normalises each feature map over the batch and all voxels, then scales and shifts it.

    Parameters and statistics have the same names as in `flax.linen.BatchNorm`.
    """

    features: int
    momentum: float  # decay of the running statistics, per step
    epsilon: float
    axis_name: str | None  # pmap axis over which batch statistics are taken

    def setup(self) -> None:
        """Declare scale and bias, and the running statistics."""
        shape = (self.features,)
        self.scale = self.param("scale", nn.initializers.ones, shape)
        self.bias = self.param("bias", nn.initializers.zeros, shape)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise with the statistics of the batch, and update the running statistics.

        This is for training. The shapes are (B, D, H, W, C) -> (B, D, H, W, C).
        """
        y, *statistics = normalise(x, self.scale, self.bias, self.epsilon, self.axis_name)
        for running, of_batch in zip((self.mean, self.var), statistics, strict=True):
            running.value = self.momentum * running.value + (1 - self.momentum) * of_batch
        return y

    def running(self) -> tuple[jax.Array, jax.Array]:
        """Return the scale and the shift for inference, (C,) each, from the running statistics."""
        return _scale_and_shift(
            self.mean.value, self.var.value, self.scale, self.bias, self.epsilon
        )


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None
) -> Outputs:
    """Normalise x (B, D, H, W, C) with its own statistics over all devices, in float32.

    Returns:
      The normalised x, (B, D, H, W, C), with the dtype of x; its mean and its variance, (C,)
      float32 each. No gradient flows through the mean and the variance.
    """
    return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[Outputs, Residuals]:
    mean, square = _over_devices(_sums(x, x) / _count(x), axis_name)
    variance = jnp.maximum(square - mean * mean, 0)
    factor, shift = _scale_and_shift(mean, variance, scale, bias, epsilon)
    y = x.astype(jnp.float32) * _wide(factor) + _wide(shift)
    return (y.astype(x.dtype), mean, variance), (x, mean, variance, scale)


def _backward(
    epsilon: float, axis_name: str | None, residuals: Residuals, cotangents: Outputs
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, variance, scale = residuals
    dy, _, _ = cotangents
    inverse_deviation = lax.rsqrt(variance + epsilon)
    # These sums are over this device only. The training step adds up the gradients of all devices.
    d_bias, product = _sums(dy, x)
    d_scale = (product - mean * d_bias) * inverse_deviation
    # The mean and the variance of the batch depend on x, too, on every device.
    by_bias, by_scale = _over_devices(jnp.stack([d_bias, d_scale]) / _count(x), axis_name)
    factor = scale * inverse_deviation
    slope = -factor * by_scale * inverse_deviation
    shift = -factor * by_bias - slope * mean
    wide_dy, wide_x = dy.astype(jnp.float32), x.astype(jnp.float32)
    dx = wide_dy * _wide(factor) + wide_x * _wide(slope) + _wide(shift)
    return dx.astype(x.dtype), d_scale, d_bias


normalise.defvjp(_forward, _backward)


def _scale_and_shift(
    mean: jax.Array, variance: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array]:
    factor = scale * lax.rsqrt(variance + epsilon)
    return factor, bias - mean * factor


def _count(x: jax.Array) -> int:
    return x.size // x.shape[-1]


def _over_devices(means: jax.Array, axis_name: str | None) -> jax.Array:
    return means if axis_name is None else lax.pmean(means, axis_name)


def _sums(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the sums of x and of x * y in each channel, (2, C)."""
    if native.available():
        return lax.platform_dependent(x, y, cpu=native.channel_sums, default=_plain_sums)
    return _plain_sums(x, y)


def _plain_sums(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return jnp.stack([jnp.sum(x, VOXELS), jnp.sum(x * y, VOXELS)])


def _wide(channels: jax.Array) -> jax.Array:
    return channels[None, None, None, None]
