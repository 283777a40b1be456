"""The native form for CPUs. Kernels and biases are converted to float32, gradients back."""

import jax
import jax.numpy as jnp

from msseg_jax.network import native
from msseg_jax.network.convolution.form import Inputs, mirrored
from msseg_jax.network.convolution.upsampling import full_sides, is_half
from msseg_jax.network.native import Output


def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    """Convolve (B, D, H, W, C_i) to (B, D, H, W, Cout). Inputs may have half as many voxels."""
    return forward_bias(inputs, kernel, jnp.zeros(kernel.shape[-1], kernel.dtype), relu=False)


def forward_bias(inputs: Inputs, kernel: jax.Array, bias: jax.Array, *, relu: bool) -> jax.Array:
    """Convolve, add the bias (Cout,), and apply a ReLU if `relu`, in one pass."""
    return native.convolve(inputs, _wide(kernel), _wide(bias), relu=relu)[0]


def gradients(inputs: Inputs, kernel: jax.Array, dy: jax.Array) -> tuple[Inputs, jax.Array]:
    """Return the gradients with respect to the inputs and the kernel."""
    full = full_sides(inputs)
    outputs = [Output(x.shape[-1], is_half(x, full)) for x in inputs]
    # One convolution gives all of them. That of an upsampled voxel is the sum over its block.
    (whole,) = mirrored(kernel, (kernel.shape[3],))
    no_bias = jnp.zeros(whole.shape[-1], jnp.float32)
    d_inputs = native.convolve((dy,), _wide(whole), no_bias, outputs=outputs)
    d_kernel = native.kernel_gradient(inputs, dy, kernel_size=kernel.shape[0])
    return d_inputs, d_kernel.astype(kernel.dtype)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)
