"""A 2-D convolution of wide voxels (`band`) over D and H; the blocks along W join the batch.

With blocks of 8 voxels, 6 channels become 60 input and 48 output channels. A 2-D convolution with
so many channels is what cuDNN is made for. Its gradients are convolutions without dilation, too.
"""

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network.convolution.band import band, in_blocks, of_band, with_halo
from msseg_jax.network.convolution.form import Form, Inputs, input_gradient_of


def wide(block: int) -> Form:
    """Return the form with `block` voxels in a wide voxel."""

    def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        if kernel.shape[0] == 1:
            return jnp.matmul(x, kernel[0, 0, 0])
        b, d, h, w, _ = x.shape
        y = _convolve_planes(_planes(with_halo(x, block)), band(kernel, block))
        y = y.reshape(b, -1, d, h, y.shape[-1]).transpose(0, 2, 3, 1, 4)
        return y.reshape(b, d, h, -1, kernel.shape[-1])[:, :, :, :w]

    def kernel_gradient(inputs: Inputs, dy: jax.Array, kernel_size: int) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        c_in, c_out = x.shape[-1], dy.shape[-1]
        if kernel_size == 1:
            rows, d_rows = x.reshape(-1, c_in), dy.reshape(-1, c_out)
            return jnp.matmul(rows.T, d_rows)[None, None, None]
        planes, d_planes = _planes(with_halo(x, block)), _planes(in_blocks(dy, block))
        shape = jax.ShapeDtypeStruct((3, 3, planes.shape[-1], d_planes.shape[-1]), x.dtype)
        transpose = jax.linear_transpose(lambda k: _convolve_planes(planes, k), shape)
        # In float32, because `of_band` adds up several entries.
        d_band = transpose(d_planes)[0].astype(jnp.float32)
        return of_band(d_band, block, c_in, c_out).astype(x.dtype)

    return Form(f"wide {block}", forward, input_gradient_of(forward), kernel_gradient)


def _planes(x: jax.Array) -> jax.Array:
    """Let the blocks join the batch: (B, D, H, n, C) -> (B * n, D, H, C)."""
    b, d, h, n, c = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(b * n, d, h, c)


def _convolve_planes(planes: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve (N, D, H, wide Cin) with (3, 3, wide Cin, wide Cout)."""
    return lax.conv_general_dilated(
        planes, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
