"""The 3-D convolution of a network with few channels, fast on a CPU as on an accelerator.

XLA's own 3-D convolution leaves a CPU idle when a layer has 6 channels: its inner product is too
narrow for the vector registers. Here `BLOCK` neighbouring voxels along W become channels of one
wide voxel, which carries the columns that the kernel reaches on either side as well. The sum
along W is then a banded matrix over channels, the rest a 2-D convolution over D and H, which XLA
does well. Half of that matrix is zeros; wide channels repay them several times over.

GPUs and TPUs get `lax.conv_general_dilated`. The choice is made where a program is lowered, so
one program serves both, and neither carries the other's code.

Measured with `python -m benchmarks.convolution --repeats 3 --batch 1` (jax 0.10.2, 2 AVX-512 cores
busy with other work as well, so only the ratios count): times faster than the direct convolution,

    56^3 voxels, channels     1 > 6   6 > 6   13 > 6   19 > 6   25 > 6
    forward                      52      61       24       28       13
    gradient by the input       107      58       14       24       21
    gradient by the kernel        7      13       21       12       10
"""

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 4  # output columns in one wide voxel; half of the band is zeros at 4, two thirds at 7
SLAB = 8  # most planes of D in one step of the kernel's gradient, so that its arrays stay in cache


def conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with stride 1 and 'same' zero padding.

    x: (B, D, H, W, Cin), any sides; kernel: (3, 3, 3, Cin, Cout) or (1, 1, 1, Cin, Cout).
    Returns (B, D, H, W, Cout). Differentiable once, in reverse mode.
    """
    if x.ndim != 5:
        raise ValueError(f"conv3d: x has shape {x.shape}, wanted (B, D, H, W, Cin)")
    if kernel.ndim != 5 or kernel.shape[:3] not in ((3, 3, 3), (1, 1, 1)):
        raise ValueError(
            f"conv3d: kernel has shape {kernel.shape}, "
            "wanted (3, 3, 3, Cin, Cout) or (1, 1, 1, Cin, Cout)"
        )
    if kernel.shape[3] != x.shape[-1]:
        raise ValueError(f"conv3d: kernel takes {kernel.shape[3]} channels, x has {x.shape[-1]}")
    if kernel.shape[0] == 1:
        return jnp.matmul(x, kernel[0, 0, 0])
    return _conv3x3x3(x, kernel)


@jax.custom_vjp
def _conv3x3x3(x, kernel):
    return lax.platform_dependent(x, kernel, cpu=_blocked, default=_direct)


def _forward(x, kernel):
    return _conv3x3x3(x, kernel), (x, kernel)


def _backward(residuals, dy):
    x, kernel = residuals
    # The gradient by the input is a 'same' convolution too: kernel mirrored, channels swapped.
    dx = _conv3x3x3(dy, jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4))
    dkernel = lax.platform_dependent(
        x, dy, cpu=_blocked_kernel_gradient, default=_direct_kernel_gradient
    )
    return dx, dkernel.astype(kernel.dtype)


_conv3x3x3.defvjp(_forward, _backward)


def _direct(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _direct_kernel_gradient(x, dy):
    kernel = jax.ShapeDtypeStruct((3, 3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: _direct(x, k), kernel)(dy)[0]


def _blocked(x, kernel):
    b, d, h, w, _ = x.shape
    n = _blocks(w)
    # H and the blocks of W are one axis here: a step of 1 along H is a step of n along it, hence
    # the dilation, and a block's neighbours along W are already among its channels.
    y = lax.conv_general_dilated(
        _with_halo(x).reshape(b, d, h * n, -1),
        _band(kernel),
        (1, 1),
        ((1, 1), (n, n)),
        rhs_dilation=(1, n),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(b, d, h, n * BLOCK, -1)[:, :, :, :w]


def _blocked_kernel_gradient(x, dy):
    b, d, h, w, c_in = x.shape
    c_out, n = dy.shape[-1], _blocks(w)
    slab = max(s for s in range(1, min(d, SLAB) + 1) if d % s == 0)
    wide_in, wide_out = (BLOCK + 2) * c_in, BLOCK * c_out
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))

    def add_slab(total, i):
        volume, first = i // (d // slab), i % (d // slab) * slab
        x_slab = lax.dynamic_slice(x, (volume, first, 0, 0, 0), (1, slab + 2, h, w, c_in))
        dy_slab = lax.dynamic_slice(dy, (volume, first, 0, 0, 0), (1, slab, h, w, c_out))
        x_slab = _with_halo(x_slab)[0]  # (slab + 2, H, n, wide_in)
        dy_slab = jnp.pad(dy_slab, ((0, 0), (0, 0), (1, 1), (0, n * BLOCK - w), (0, 0)))
        dy_slab = dy_slab.reshape(slab, h + 2, n, wide_out)
        # The three steps along H stand side by side: one wide product in place of three.
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
    # The band is linear in the kernel: its transpose adds up what the band repeats.
    kernel = jax.ShapeDtypeStruct((3, 3, 3, c_in, c_out), dtype)
    return jax.linear_transpose(_band, kernel)(dband)[0].astype(x.dtype)


def _blocks(w):
    return -(-w // BLOCK)


def _with_halo(x):
    """(B, D, H, W, C) -> (B, D, H, n, (BLOCK + 2) * C): each block with a column on either side."""
    b, d, h, w, c = x.shape
    n = _blocks(w)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, (n + 1) * BLOCK - w - 1), (0, 0)))
    x = x.reshape(b, d, h, n + 1, BLOCK * c)
    return jnp.concatenate([x[..., :n, :], x[..., 1:, : 2 * c]], axis=-1)


def _band(kernel):
    """(3, 3, 3, Cin, Cout) -> (3, 3, (BLOCK + 2) * Cin, BLOCK * Cout): output column j of a block
    sees its input columns j, j + 1 and j + 2 only."""
    columns = [
        jnp.pad(kernel, ((0, 0), (0, 0), (j, BLOCK - 1 - j), (0, 0), (0, 0))) for j in range(BLOCK)
    ]
    c_in, c_out = kernel.shape[3:]
    return jnp.stack(columns, axis=4).reshape(3, 3, (BLOCK + 2) * c_in, BLOCK * c_out)
