"""The parts that all forms of the convolution share: three passes, and the shapes of a layer."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from msseg_jax.network.convolution.upsampling import full_sides

Inputs = tuple[jax.Array, ...]  # (B, D, H, W, C_i) each, to be concatenated along the channels
Channels = tuple[int, ...]  # the C_i of the inputs
Pass = Literal["forward", "input gradient", "kernel gradient"]
PASSES: tuple[Pass, ...] = get_args(Pass)


class Form(NamedTuple):
    """One way to compute a 'same' convolution with stride 1, and its gradients."""

    name: str
    # (inputs, kernel (K, K, K, Cin, Cout)) -> (B, D, H, W, Cout)
    forward: Callable[[Inputs, jax.Array], jax.Array]
    # (dy (B, D, H, W, Cout), kernel, channels of the inputs) -> gradient of each input
    input_gradient: Callable[[jax.Array, jax.Array, Channels], Inputs]
    # (inputs, dy, K) -> (K, K, K, Cin, Cout)
    kernel_gradient: Callable[[Inputs, jax.Array, int], jax.Array]


class LayerShape(NamedTuple):
    """The shapes of one convolution on one device."""

    batch: int  # volumes
    sides: tuple[int, int, int]  # D, H, W in voxels
    channels: Channels
    features: int  # Cout
    kernel_size: int  # 1 or 3
    dtype: str

    @classmethod
    def of(cls, inputs: Sequence[jax.Array], features: int, kernel_size: int) -> "LayerShape":
        """Return the shapes of a convolution of these inputs. Small inputs count as upsampled."""
        batch, *sides = full_sides(inputs)
        channels = tuple(x.shape[-1] for x in inputs)
        depth, height, width = sides
        dtype = str(inputs[0].dtype)
        return cls(batch, (depth, height, width), channels, features, kernel_size, dtype)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Return (K, K, K, Cin, Cout)."""
        return (*(self.kernel_size,) * 3, sum(self.channels), self.features)

    def __str__(self) -> str:
        """Return a short text that differs for all layers: '80x56x56x56 6+7>6 k3 float32'."""
        sizes = "x".join(map(str, (self.batch, *self.sides)))
        channels = "+".join(map(str, self.channels))
        return f"{sizes} {channels}>{self.features} k{self.kernel_size} {self.dtype}"


def mirrored(kernel: jax.Array, channels: Channels) -> list[jax.Array]:
    """Return the kernels that map the gradient of the output to the gradient of each input.

    The gradient with respect to an input is a 'same' convolution, too. Its kernel is the mirrored
    kernel, with input and output channels swapped: (K, K, K, Cout, C_i).
    """
    whole = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    return [whole[..., a:b] for a, b in pairwise(accumulate(channels, initial=0))]


def input_gradient_of(
    forward: Callable[[Inputs, jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array, Channels], Inputs]:
    """Return the gradient with respect to the inputs, computed by one convolution per input."""

    def input_gradient(dy: jax.Array, kernel: jax.Array, channels: Channels) -> Inputs:
        return tuple(forward((dy,), part) for part in mirrored(kernel, channels))

    return input_gradient


def split(x: jax.Array, channels: Channels) -> Inputs:
    """Split the last axis of an array into parts with so many channels each."""
    return tuple(x[..., a:b] for a, b in pairwise(accumulate(channels, initial=0)))
