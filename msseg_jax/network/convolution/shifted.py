"""A sum of 9 shifted matrix products of wide voxels (`band`), without a convolution.

D and H are padded by one plane and one row on either side. In the padded array, seen as a matrix
with one row per wide voxel, a shift along D and H is a shift by a fixed number of rows. So each of
the 3 x 3 taps is a product of a contiguous part of the matrix, and no part is copied 9 or 27 times.
Rows that belong to the padding give values that are thrown away.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from msseg_jax.network.convolution.band import band, blocks, in_blocks, of_band, with_halo
from msseg_jax.network.convolution.form import Form, Inputs, input_gradient_of

AROUND = ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0))  # padding of (B, D, H, W, C)
AFTER = ((0, 0), (0, 2), (0, 2), (0, 0), (0, 0))


def shifted(block: int) -> Form:
    """Return the form with `block` voxels in a wide voxel."""

    def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        if kernel.shape[0] == 1:
            return jnp.matmul(x, kernel[0, 0, 0])
        b, d, h, w, _ = x.shape
        n = blocks(w, block)
        rows = _rows(with_halo(jnp.pad(x, AROUND), block))
        taps = band(kernel, block)
        y = jnp.zeros((), jnp.float32)
        for i, j, part in _parts(rows, h, n):
            y = y + jnp.matmul(part, taps[i, j], preferred_element_type=jnp.float32)
        y = jnp.pad(y.astype(x.dtype), ((0, len(rows) - len(y)), (0, 0)))
        y = y.reshape(b, d + 2, h + 2, n * block, kernel.shape[-1])
        return y[:, :d, :h, :w]

    def kernel_gradient(inputs: Inputs, dy: jax.Array, kernel_size: int) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        c_in, c_out = x.shape[-1], dy.shape[-1]
        if kernel_size == 1:
            rows, d_rows = x.reshape(-1, c_in), dy.reshape(-1, c_out)
            product = jnp.matmul(rows.T, d_rows, preferred_element_type=jnp.float32)
            return product.astype(x.dtype)[None, None, None]
        h, n = x.shape[2], blocks(x.shape[3], block)
        rows = _rows(with_halo(jnp.pad(x, AROUND), block))
        d_rows = _rows(in_blocks(jnp.pad(dy, AFTER), block))
        products = [
            jnp.matmul(part.T, d_rows[: len(part)], preferred_element_type=jnp.float32)
            for _, _, part in _parts(rows, h, n)
        ]
        d_band = jnp.stack(products).reshape(3, 3, rows.shape[1], d_rows.shape[1])
        return of_band(d_band, block, c_in, c_out).astype(x.dtype)

    return Form(f"shifted {block}", forward, input_gradient_of(forward), kernel_gradient)


def _rows(x: jax.Array) -> jax.Array:
    """Return a matrix with one row per wide voxel: (B, D, H, n, C) -> (B * D * H * n, C)."""
    return x.reshape(-1, x.shape[-1])


def _parts(rows: jax.Array, h: int, n: int) -> Iterator[tuple[int, int, jax.Array]]:
    """Yield each tap (i, j) along D and H, and the rows that it reads. All have equal length."""
    plane = (h + 2) * n
    length = len(rows) - 2 * plane - 2 * n
    for i in range(3):
        for j in range(3):
            first = i * plane + j * n
            yield i, j, rows[first : first + length]
