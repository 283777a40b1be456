"""XLA's 3-D convolution with channels padded to a multiple of 8, for which cuDNN is made.

The gradient with respect to the kernel is written as a forward convolution with explicit padding:
batch and channels swap their roles, and the gradient of the output is the kernel. XLA's own
gradient of a padded convolution was reported to be many times slower on a GPU.
"""

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network.convolution import plain
from msseg_jax.network.convolution.form import Form, Inputs, input_gradient_of

MULTIPLE = 8  # channels


def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    """Convolve (B, D, H, W, C_i) to (B, D, H, W, Cout)."""
    c_out = kernel.shape[-1]
    kernel = _padded(_padded(kernel, 3), 4)
    return plain.forward((_padded(jnp.concatenate(inputs, axis=-1), 4),), kernel)[..., :c_out]


def kernel_gradient(inputs: Inputs, dy: jax.Array, kernel_size: int) -> jax.Array:
    """Return the gradient with respect to the kernel, (K, K, K, Cin, Cout)."""
    x = jnp.concatenate(inputs, axis=-1)
    c_in, c_out = x.shape[-1], dy.shape[-1]
    reach = kernel_size // 2
    x = jnp.pad(_padded(x, 4), ((0, 0), *[(reach, reach)] * 3, (0, 0)))
    # A "volume" for each input channel, whose channels are the volumes of the batch.
    gradient = lax.conv_general_dilated(
        x,
        _padded(dy, 4),
        (1, 1, 1),
        "VALID",
        dimension_numbers=("CDHWN", "IDHWO", "DHWNC"),
        preferred_element_type=jnp.float32,
    )
    return gradient[..., :c_in, :c_out].astype(dy.dtype)


def _padded(x: jax.Array, axis: int) -> jax.Array:
    """Append zeros along an axis until its size is a multiple of `MULTIPLE`."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % MULTIPLE)
    return jnp.pad(x, widths)


PADDED = Form("padded", forward, input_gradient_of(forward), kernel_gradient)
