"""Wide voxels: `block` neighbouring voxels along W become the channels of one.

A wide voxel also contains the columns on either side that a 3x3x3 kernel reaches. The sum along W
is then a product with a banded matrix over channels. For one output column of a block, 3 of the
block + 2 input columns count and the others are multiplied by zero. The wide channels fill vector
units and tensor cores, which saves several times as much as the zeros cost.
"""

import jax
import jax.numpy as jnp


def blocks(w: int, block: int) -> int:
    """Return the number of blocks that cover `w` columns."""
    return -(-w // block)


def with_halo(x: jax.Array, block: int) -> jax.Array:
    """Split W into n blocks, each with one more column on either side.

    The shapes are (B, D, H, W, C) -> (B, D, H, n, (block + 2) * C).
    """
    b, d, h, w, c = x.shape
    n = blocks(w, block)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, (n + 1) * block - w - 1), (0, 0)))
    x = x.reshape(b, d, h, n + 1, block * c)
    return jnp.concatenate([x[..., :n, :], x[..., 1:, : 2 * c]], axis=-1)


def in_blocks(y: jax.Array, block: int) -> jax.Array:
    """Split W into blocks without a halo: (B, D, H, W, C) -> (B, D, H, n, block * C)."""
    b, d, h, w, c = y.shape
    n = blocks(w, block)
    y = jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, n * block - w), (0, 0)))
    return y.reshape(b, d, h, n, block * c)


def band(kernel: jax.Array, block: int) -> jax.Array:
    """Return the kernel of a whole block. Output column j depends on input columns j to j + 2.

    The shapes are (3, 3, 3, Cin, Cout) -> (3, 3, (block + 2) * Cin, block * Cout).
    """
    columns = [
        jnp.pad(kernel, ((0, 0), (0, 0), (j, block - 1 - j), (0, 0), (0, 0))) for j in range(block)
    ]
    c_in, c_out = kernel.shape[3:]
    return jnp.stack(columns, axis=4).reshape(3, 3, (block + 2) * c_in, block * c_out)


def of_band(d_band: jax.Array, block: int, c_in: int, c_out: int) -> jax.Array:
    """Return the gradient with respect to the kernel from that with respect to its band.

    The band is linear in the kernel. The transpose of `band` adds up the repeated entries.
    The shapes are (3, 3, (block + 2) * Cin, block * Cout) -> (3, 3, 3, Cin, Cout).
    """
    kernel = jax.ShapeDtypeStruct((3, 3, 3, c_in, c_out), d_band.dtype)
    return jax.linear_transpose(lambda k: band(k, block), kernel)(d_band)[0]
