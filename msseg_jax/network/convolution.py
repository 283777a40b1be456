"""A 3-D convolution for networks with few channels that is fast on CPUs and on accelerators.

XLA's own 3-D convolution uses a CPU poorly if a layer has as few as 6 channels. On a CPU, the
native convolution (`native.py`) replaces it. If that is not available, `_blocked` does the same in
plain JAX. GPUs and TPUs use `lax.conv_general_dilated`. The choice is made when a program is
lowered. The same program therefore works on both kinds of device, and the compiled code contains
only the form for its own device.

In the plain form, `BLOCK` neighbouring voxels along W become the channels of one wide voxel. The
wide voxel also contains the columns on either side that the kernel reaches. The sum along W is then
a product with a banded matrix over channels. What remains is a 2-D convolution over D and H, which
XLA computes efficiently. Half of the matrix is zeros, but the wide channels save several times as
much as the zeros cost.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network import native

BLOCK = 4  # output columns in one wide voxel; with 4, half of the band is zeros, with 7, two thirds
SLAB = 8  # maximum planes of D per step of the kernel's gradient, so that arrays stay in CPU cache

Inputs = tuple[jax.Array, ...]  # (B, D, H, W, C_i) each, to be concatenated along the channels


def conv3d(inputs: Iterable[jax.Array], kernel: jax.Array) -> jax.Array:
    """Convolve the concatenated inputs with stride 1 and 'same' zero padding.

    Args:
      inputs: (B, D, H, W, C_i) each, to be concatenated along the channels. D, H and W may have any
        size. The C_i add up to Cin.
      kernel: (3, 3, 3, Cin, Cout) or (1, 1, 1, Cin, Cout).

    Returns:
      (B, D, H, W, Cout). It can be differentiated once, in reverse mode.

    Raises:
      ValueError: The shapes or the dtypes do not match.
    """
    inputs = tuple(inputs)
    _check(inputs, kernel)
    return _convolve(inputs, kernel)


def conv3d_bias(
    inputs: Iterable[jax.Array], kernel: jax.Array, bias: jax.Array, *, relu: bool
) -> jax.Array:
    """Compute `conv3d`, add a bias (Cout,), and apply a ReLU if `relu`, all in one pass.

    It cannot be differentiated.

    Raises:
      ValueError: The shapes or the dtypes do not match.
    """
    inputs = tuple(inputs)
    _check(inputs, kernel)
    if bias.shape != kernel.shape[-1:] or bias.dtype != kernel.dtype:
        raise ValueError(
            f"conv3d: bias is {bias.dtype}{bias.shape}; expected {kernel.dtype}{kernel.shape[-1:]}"
        )

    def plain(
        convolve: Callable[[Inputs, jax.Array], jax.Array],
        inputs: Inputs,
        kernel: jax.Array,
        bias: jax.Array,
    ) -> jax.Array:
        y = convolve(inputs, kernel) + bias[None, None, None, None]
        return jnp.maximum(y, 0) if relu else y

    cpu = partial(_native_bias, relu=relu) if _is_native(kernel) else partial(plain, _blocked)
    return lax.platform_dependent(inputs, kernel, bias, cpu=cpu, default=partial(plain, _direct))


def _check(inputs: Inputs, kernel: jax.Array) -> None:
    """Raise ValueError unless the shapes and dtypes of inputs and kernel match."""
    for x in inputs:
        if x.ndim != 5 or x.shape[:4] != inputs[0].shape[:4]:
            raise ValueError(
                f"conv3d: inputs have shapes {[x.shape for x in inputs]}; expected (B, D, H, W, C) "
                "each, the same except for C"
            )
    if kernel.ndim != 5 or kernel.shape[:3] not in ((3, 3, 3), (1, 1, 1)):
        raise ValueError(
            f"conv3d: kernel has shape {kernel.shape}; "
            "expected (3, 3, 3, Cin, Cout) or (1, 1, 1, Cin, Cout)"
        )
    if any(x.dtype != kernel.dtype for x in inputs):
        raise ValueError(
            f"conv3d: inputs are {[str(x.dtype) for x in inputs]}, the kernel is {kernel.dtype}; "
            "expected the same dtype for all"
        )
    channels = sum(x.shape[-1] for x in inputs)
    if kernel.shape[3] != channels:
        raise ValueError(
            f"conv3d: kernel expects {kernel.shape[3]} channels, but the inputs have {channels}"
        )


def _is_native(kernel: jax.Array) -> bool:
    """Return whether a CPU uses the native convolution for the dtype of this kernel."""
    return kernel.dtype in (jnp.float32, jnp.bfloat16) and native.available()


@jax.custom_vjp
def _convolve(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    cpu = _native if _is_native(kernel) else _blocked
    return lax.platform_dependent(inputs, kernel, cpu=cpu, default=_direct)


def _forward(inputs: Inputs, kernel: jax.Array) -> tuple[jax.Array, tuple[Inputs, jax.Array]]:
    return _convolve(inputs, kernel), (inputs, kernel)


def _backward(residuals: tuple[Inputs, jax.Array], dy: jax.Array) -> tuple[Inputs, jax.Array]:
    inputs, kernel = residuals
    # The gradient with respect to an input is a 'same' convolution, too. Its kernel is the mirrored
    # kernel, with input and output channels swapped.
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    ends = [0]
    for x in inputs:
        ends.append(ends[-1] + x.shape[-1])
    d_inputs = tuple(_convolve((dy,), mirrored[..., a:b]) for a, b in pairwise(ends))
    size = kernel.shape[0]
    cpu = _native_kernel_gradient if _is_native(kernel) else _blocked_kernel_gradient
    dkernel = lax.platform_dependent(
        inputs, dy, cpu=partial(cpu, kernel_size=size),
        default=partial(_direct_kernel_gradient, kernel_size=size),
    )  # fmt: skip
    return d_inputs, dkernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _native(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    return _native_bias(inputs, kernel, jnp.zeros(kernel.shape[-1], kernel.dtype), relu=False)


# The native form computes in float32. Other dtypes are converted to float32 and back.


def _native_bias(inputs: Inputs, kernel: jax.Array, bias: jax.Array, *, relu: bool) -> jax.Array:
    inputs, wide_kernel, bias = jax.tree.map(_wide, (inputs, kernel, bias))
    return native.convolve(inputs, wide_kernel, bias, relu=relu).astype(kernel.dtype)


def _native_kernel_gradient(inputs: Inputs, dy: jax.Array, *, kernel_size: int) -> jax.Array:
    inputs, wide_dy = jax.tree.map(_wide, (inputs, dy))
    return native.kernel_gradient(inputs, wide_dy, kernel_size=kernel_size).astype(dy.dtype)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)


def _direct(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        jnp.concatenate(inputs, axis=-1),
        kernel,
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )


def _direct_kernel_gradient(inputs: Inputs, dy: jax.Array, *, kernel_size: int) -> jax.Array:
    x = jnp.concatenate(inputs, axis=-1)
    kernel = jax.ShapeDtypeStruct((kernel_size,) * 3 + (x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: _direct((x,), k), kernel)(dy)[0]


def _blocked(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    x = jnp.concatenate(inputs, axis=-1)
    if kernel.shape[0] == 1:
        return jnp.matmul(x, kernel[0, 0, 0])
    b, d, h, w, _ = x.shape
    n = _blocks(w)
    # H and the n blocks along W form one axis here. A step of 1 along H is a step of n along this
    # axis, so the kernel is dilated by n. The channels of a block already include its neighbours
    # along W.
    y = lax.conv_general_dilated(
        _with_halo(x).reshape(b, d, h * n, -1),
        _band(kernel),
        (1, 1),
        ((1, 1), (n, n)),
        rhs_dilation=(1, n),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(b, d, h, n * BLOCK, -1)[:, :, :, :w]


def _blocked_kernel_gradient(inputs: Inputs, dy: jax.Array, *, kernel_size: int) -> jax.Array:
    x = jnp.concatenate(inputs, axis=-1)
    b, d, h, w, c_in = x.shape
    if kernel_size == 1:
        dkernel = jnp.matmul(x.reshape(-1, c_in).T, dy.reshape(-1, dy.shape[-1]))
        return dkernel[None, None, None]
    c_out, n = dy.shape[-1], _blocks(w)
    slab = max(s for s in range(1, min(d, SLAB) + 1) if d % s == 0)
    wide_in, wide_out = (BLOCK + 2) * c_in, BLOCK * c_out
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))

    def add_slab(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        volume, first = i // (d // slab), i % (d // slab) * slab
        x_slab = lax.dynamic_slice(x, (volume, first, 0, 0, 0), (1, slab + 2, h, w, c_in))
        dy_slab = lax.dynamic_slice(dy, (volume, first, 0, 0, 0), (1, slab, h, w, c_out))
        x_slab = _with_halo(x_slab)[0]  # (slab + 2, H, n, wide_in)
        dy_slab = jnp.pad(dy_slab, ((0, 0), (0, 0), (1, 1), (0, n * BLOCK - w), (0, 0)))
        dy_slab = dy_slab.reshape(slab, h + 2, n, wide_out)
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
    # The band is linear in the kernel. The transpose of `_band` adds up the repeated entries.
    kernel = jax.ShapeDtypeStruct((3, 3, 3, c_in, c_out), dtype)
    return jax.linear_transpose(_band, kernel)(dband)[0].astype(x.dtype)


def _blocks(w: int) -> int:
    """Return the number of blocks that cover `w` columns."""
    return -(-w // BLOCK)


def _with_halo(x: jax.Array) -> jax.Array:
    """Split W into n blocks, each with one more column on either side.

    The shapes are (B, D, H, W, C) -> (B, D, H, n, (BLOCK + 2) * C).
    """
    b, d, h, w, c = x.shape
    n = _blocks(w)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, (n + 1) * BLOCK - w - 1), (0, 0)))
    x = x.reshape(b, d, h, n + 1, BLOCK * c)
    return jnp.concatenate([x[..., :n, :], x[..., 1:, : 2 * c]], axis=-1)


def _band(kernel: jax.Array) -> jax.Array:
    """Return the kernel of a whole block. Output column j depends on input columns j to j + 2.

    The shapes are (3, 3, 3, Cin, Cout) -> (3, 3, (BLOCK + 2) * Cin, BLOCK * Cout).
    """
    columns = [
        jnp.pad(kernel, ((0, 0), (0, 0), (j, BLOCK - 1 - j), (0, 0), (0, 0))) for j in range(BLOCK)
    ]
    c_in, c_out = kernel.shape[3:]
    return jnp.stack(columns, axis=4).reshape(3, 3, (BLOCK + 2) * c_in, BLOCK * c_out)
