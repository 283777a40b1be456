"""The native form for CPUs. It computes in float32; other dtypes are converted and back."""

import jax
import jax.numpy as jnp

from msseg_jax.network import native
from msseg_jax.network.convolution.form import Form, Inputs, input_gradient_of


def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    """Convolve (B, D, H, W, C_i) to (B, D, H, W, Cout)."""
    return forward_bias(inputs, kernel, jnp.zeros(kernel.shape[-1], kernel.dtype), relu=False)


def forward_bias(inputs: Inputs, kernel: jax.Array, bias: jax.Array, *, relu: bool) -> jax.Array:
    """Convolve, add the bias (Cout,), and apply a ReLU if `relu`, in one pass."""
    inputs, wide_kernel, bias = jax.tree.map(_wide, (inputs, kernel, bias))
    return native.convolve(inputs, wide_kernel, bias, relu=relu).astype(kernel.dtype)


def kernel_gradient(inputs: Inputs, dy: jax.Array, kernel_size: int) -> jax.Array:
    """Return the gradient with respect to the kernel, (K, K, K, Cin, Cout)."""
    inputs, wide_dy = jax.tree.map(_wide, (inputs, dy))
    return native.kernel_gradient(inputs, wide_dy, kernel_size=kernel_size).astype(dy.dtype)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)


NATIVE = Form("native", forward, input_gradient_of(forward), kernel_gradient)
