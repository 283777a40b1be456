"""The plain form: XLA's own 3-D convolution and its transpose. All other forms must agree with it.

On an NVIDIA GPU, XLA and cuDNN may round float32 inputs to TF32 (10 bits after the binary point).
"""

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network.convolution.form import Form, Inputs, input_gradient_of


def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    """Convolve (B, D, H, W, C_i) to (B, D, H, W, Cout)."""
    return lax.conv_general_dilated(
        jnp.concatenate(inputs, axis=-1),
        kernel,
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )


def kernel_gradient(inputs: Inputs, dy: jax.Array, kernel_size: int) -> jax.Array:
    """Return the gradient with respect to the kernel, (K, K, K, Cin, Cout)."""
    x = jnp.concatenate(inputs, axis=-1)
    kernel = jax.ShapeDtypeStruct((kernel_size,) * 3 + (x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: forward((x,), k), kernel)(dy)[0]


PLAIN = Form("plain", forward, input_gradient_of(forward), kernel_gradient)
