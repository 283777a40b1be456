"""The form for CPUs without a C++ compiler: wide voxels (`band`) in plain JAX.

What remains is a 2-D convolution over D and H, which XLA computes efficiently on a CPU.
"""

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network.convolution.band import band, blocks, in_blocks, of_band, with_halo
from msseg_jax.network.convolution.form import Form, Inputs, input_gradient_of

BLOCK = 4  # output columns in one wide voxel; with 4, half of the band is zeros, with 7, two thirds
SLAB = 8  # maximum planes of D per step of the kernel's gradient, so that arrays stay in CPU cache


def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    """Convolve (B, D, H, W, C_i) to (B, D, H, W, Cout)."""
    x = jnp.concatenate(inputs, axis=-1)
    if kernel.shape[0] == 1:
        return jnp.matmul(x, kernel[0, 0, 0])
    b, d, h, w, _ = x.shape
    n = blocks(w, BLOCK)
    # H and the n blocks along W form one axis here. A step of 1 along H is a step of n along this
    # axis, so the kernel is dilated by n. The channels of a block already include its neighbours
    # along W.
    y = lax.conv_general_dilated(
        with_halo(x, BLOCK).reshape(b, d, h * n, -1),
        band(kernel, BLOCK),
        (1, 1),
        ((1, 1), (n, n)),
        rhs_dilation=(1, n),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(b, d, h, n * BLOCK, -1)[:, :, :, :w]


def kernel_gradient(inputs: Inputs, dy: jax.Array, kernel_size: int) -> jax.Array:
    """Return the gradient with respect to the kernel, (K, K, K, Cin, Cout)."""
    x = jnp.concatenate(inputs, axis=-1)
    b, d, h, w, c_in = x.shape
    if kernel_size == 1:
        dkernel = jnp.matmul(x.reshape(-1, c_in).T, dy.reshape(-1, dy.shape[-1]))
        return dkernel[None, None, None]
    c_out = dy.shape[-1]
    slab = max(s for s in range(1, min(d, SLAB) + 1) if d % s == 0)
    wide_in, wide_out = (BLOCK + 2) * c_in, BLOCK * c_out
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))

    def add_slab(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        volume, first = i // (d // slab), i % (d // slab) * slab
        x_slab = lax.dynamic_slice(x, (volume, first, 0, 0, 0), (1, slab + 2, h, w, c_in))
        dy_slab = lax.dynamic_slice(dy, (volume, first, 0, 0, 0), (1, slab, h, w, c_out))
        x_slab = with_halo(x_slab, BLOCK)[0]  # (slab + 2, H, n, wide_in)
        dy_slab = in_blocks(jnp.pad(dy_slab, ((0, 0), (0, 0), (1, 1), (0, 0), (0, 0))), BLOCK)[0]
        # The three shifts along H are concatenated, to get one wide product instead of three.
        dy_slab = jnp.concatenate([dy_slab[:, 2 - k : 2 - k + h] for k in range(3)], axis=-1)
        products = [
            jnp.matmul(
                x_slab[k : k + slab].reshape(-1, wide_in).T,
                dy_slab.reshape(-1, 3 * wide_out),
                preferred_element_type=dtype,
            )
            for k in range(3)
        ]
        return total + jnp.stack(products), None

    zeros = jnp.zeros((3, wide_in, 3 * wide_out), dtype)
    dband, _ = lax.scan(add_slab, zeros, jnp.arange(b * (d // slab)))
    dband = dband.reshape(3, wide_in, 3, wide_out).swapaxes(1, 2)
    return of_band(dband, BLOCK, c_in, c_out).astype(x.dtype)


BLOCKED = Form("blocked", forward, input_gradient_of(forward), kernel_gradient)
