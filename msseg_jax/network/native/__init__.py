"""The native convolution for CPUs: C++ kernels that XLA calls.

`library.py` compiles the kernels, and `kernels/` holds them. For JAX, arrays have the shape (B, D,
H, W, C). XLA is asked to store them with the channels before the voxels. Feature maps are float32
or bfloat16; products and sums are in float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from msseg_jax.network.native.library import available, multiplies_bfloat16, state

__all__ = ["Output", "available", "channel_sums", "convolve", "kernel_gradient",
           "multiplies_bfloat16", "state"]  # fmt: skip

PLANAR = (0, 4, 1, 2, 3)  # axes of (B, D, H, W, C) from slowest to fastest: (B, C, D, H, W)


class Output(NamedTuple):
    """One of the arrays into which `convolve` splits its output channels."""

    channels: int
    half: bool = False  # the sum over each block of 2x2x2 voxels, (B, D/2, H/2, W/2, channels)


def convolve(
    inputs: Sequence[jax.Array],
    kernel: jax.Array,
    bias: jax.Array,
    *,
    relu: bool = False,
    outputs: Sequence[Output] | None = None,
) -> tuple[jax.Array, ...]:
    """Return the 'same' convolution of the concatenated inputs, plus a bias, then a ReLU if `relu`.

    Args:
      inputs: (B, D, H, W, C_i) each, with the same dtype; the C_i add up to Cin. With a kernel of
        3x3x3, inputs may also be (B, D/2, H/2, W/2, C_i). Each of their voxels is then repeated in
        a block of 2x2x2.
      kernel: (K, K, K, Cin, Cout) float32, K = 1 or 3.
      bias: (Cout,) float32.
      relu: not with outputs of half size, which get no bias, either.
      outputs: their channels add up to Cout. None: one output.

    Returns:
      The outputs, (B, D, H, W, C_o) each, with the dtype of the inputs.
    """
    batch, *sides = max((x.shape[:4] for x in inputs), key=lambda shape: shape[1])
    shapes = [
        jax.ShapeDtypeStruct(
            (batch, *(side // 2 if half else side for side in sides), channels), inputs[0].dtype
        )
        for channels, half in outputs or (Output(kernel.shape[-1]),)
    ]
    call = jax.ffi.ffi_call(
        "msseg_convolve", shapes, vmap_method="sequential",
        input_layouts=[None, None, *[PLANAR] * len(inputs)], output_layouts=[PLANAR] * len(shapes),
    )  # fmt: skip
    sides_of_all = np.array([batch, *sides], np.int64)
    return tuple(call(kernel, bias, *inputs, relu=relu, sides=sides_of_all))


def kernel_gradient(inputs: Sequence[jax.Array], dy: jax.Array, kernel_size: int) -> jax.Array:
    """Return the gradient with respect to the kernel, (K, K, K, Cin, Cout) float32.

    Args:
      inputs: as in `convolve`.
      dy: (B, D, H, W, Cout), the gradient with respect to the output, with the inputs' dtype.
    """
    channels = sum(x.shape[-1] for x in inputs)
    shape = jax.ShapeDtypeStruct((kernel_size,) * 3 + (channels, dy.shape[-1]), jnp.float32)
    call = jax.ffi.ffi_call(
        "msseg_kernel_gradient", shape, vmap_method="sequential",
        input_layouts=[PLANAR] * (1 + len(inputs)),
    )  # fmt: skip
    return call(dy, *inputs)


def channel_sums(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the sums of x and of x * y in each channel, (2, C) float32.

    Args:
      x, y: (B, D, H, W, C) each, with the same dtype.
    """
    shape = jax.ShapeDtypeStruct((2, x.shape[-1]), jnp.float32)
    call = jax.ffi.ffi_call(
        "msseg_channel_sums", shape, vmap_method="sequential", input_layouts=[PLANAR, PLANAR]
    )
    return call(x, y)
