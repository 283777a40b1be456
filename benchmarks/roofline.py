"""Roofline limit: the shortest time in which a device can make a training step.

The limit is the time for the arithmetic or for the memory traffic, whichever is longer (Williams et
al., "Roofline", CACM 2009). Only the convolutions are counted; they are found by tracing the model.
The other parts (batch normalisation, activations, pooling, upsampling, dropout, the loss) work on
feature maps that a convolution reads or writes anyway, so they could be fused with it at no extra
traffic.

The limit holds for the layers as they are written, as plain sums over 27 taps. Feature maps are
counted at the size at which they enter a convolution. A convolution that upsamples while it reads
needs only an eighth of an upsampled map. In the paper's training in bfloat16 this saves 12 % of the
bytes. Minimal filtering needs 4/9 of the multiplications. The native convolution for CPUs does
both, so it can be faster than this limit.

This module is not a command; `python -m benchmarks.train` prints the limit.
"""

import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msseg_jax.configuration.sections import Configuration
from msseg_jax.network.model import Convolution, SiameseMPUNet
from msseg_jax.system.machine import processors


@dataclass(frozen=True)
class Layer:
    """One convolution, applied to a whole batch."""

    name: str
    kernel: tuple[int, ...]  # (K, K, K, Cin, Cout)
    voxels: int  # output voxels of the batch, both visits; as many as input voxels
    bytes_per_number: int  # of the feature maps, and of the kernel when it is applied
    reads_images: bool  # if true, the gradient with respect to its input is not needed

    @property
    def operations(self) -> int:
        """Operations of a forward pass.

        A multiplication and an addition for each weight and output voxel, including the zeros of
        the padding. The gradient with respect to the input takes as many operations, and so does
        the gradient with respect to the kernel.
        """
        return 2 * math.prod(self.kernel) * self.voxels

    @property
    def forward_bytes(self) -> int:
        """Memory traffic of a forward pass: read input and kernel, write the output, once each."""
        return self._bytes(self.kernel[3] + self.kernel[4])

    @property
    def training_operations(self) -> int:
        """Operations of the forward pass and the gradients with respect to kernel and input."""
        return (2 if self.reads_images else 3) * self.operations

    @property
    def training_bytes(self) -> int:
        """Memory traffic of the forward and the backward pass.

        The backward pass reads the output's gradient, the input and the kernel once each. It writes
        the gradients with respect to the input and the kernel once each.
        """
        by_input = 0 if self.reads_images else self.kernel[3]
        backward = self._bytes(self.kernel[3] + self.kernel[4] + by_input)
        return self.forward_bytes + backward + math.prod(self.kernel) * self.bytes_per_number

    def _bytes(self, maps: int) -> int:
        return (maps * self.voxels + math.prod(self.kernel)) * self.bytes_per_number


@dataclass(frozen=True)
class Device:
    """Peak performance of a device, as its maker states it or as measured."""

    bandwidth_gb_s: float  # 1e9 bytes of its memory per second
    peak_tflop_s: float  # 1e12 operations per second

    def least_seconds(self, layers: list[Layer]) -> float:
        """Return the shortest time of a training step, if memory traffic and arithmetic overlap."""
        moving_s = sum(layer.training_bytes for layer in layers) / (self.bandwidth_gb_s * 1e9)
        computing_s = sum(layer.training_operations for layer in layers) / (
            self.peak_tflop_s * 1e12
        )
        return max(moving_s, computing_s)


# From NVIDIA's data sheets of the H100 (SXM) and the H200: tensor cores without sparsity. The value
# for float32 is that of TF32, because XLA and cuDNN compute float32 convolutions in TF32.
HOPPER_TFLOP_S = {"float32": 494.0, "bfloat16": 989.0}
# By the device kind that JAX reports: GB/s, and TFLOP/s for each compute dtype.
DEVICES = {
    "NVIDIA H100 80GB HBM3": (3350.0, HOPPER_TFLOP_S),
    "NVIDIA H200": (4800.0, HOPPER_TFLOP_S),
}


def known_device(kind: str, compute_dtype: str) -> Device | None:
    """Look up a device in `DEVICES`; return None if it is not there."""
    if kind not in DEVICES:
        return None
    bandwidth_gb_s, peaks = DEVICES[kind]
    return Device(bandwidth_gb_s, peaks[compute_dtype])


def count_layers(
    config: Configuration, batch_size: int, compute_dtype: str = "float32"
) -> list[Layer]:
    """Return the convolutions of a pass of `batch_size` patch pairs, without computing them."""
    model = SiameseMPUNet(config.model, compute_dtype=compute_dtype)
    visit = jax.ShapeDtypeStruct((batch_size, *(config.data.patch_size,) * 3, 1), jnp.float32)
    layers = []

    def note(next_call, args, kwargs, context):
        output = next_call(*args, **kwargs)
        if isinstance(context.module, Convolution) and context.method_name == "__call__":
            layers.append(
                Layer(
                    "/".join(context.module.path),
                    context.module.variables["params"]["kernel"].shape,
                    math.prod(output.shape[:4]),
                    output.dtype.itemsize,
                    reads_images=not layers,  # true for the first layer
                )
            )
        return output

    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
        )
    return layers


def measured_cpu() -> Device:
    """Measure the peak performance of the processors with NumPy: copies and a matrix product."""
    threads, numbers, side = processors(), 2**26, 2048
    halves = [np.ones((2, numbers // threads), np.float32) for _ in range(threads)]
    square = np.ones((side, side), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        copying_s = _shortest_s(lambda: list(pool.map(lambda a: np.copyto(a[0], a[1]), halves)))
    multiplying_s = _shortest_s(lambda: square @ square)
    # A copy reads each number and writes it.
    return Device(2 * 4 * numbers / copying_s / 1e9, 2 * side**3 / multiplying_s / 1e12)


def _shortest_s(work) -> float:
    """Return the shortest of seven times that `work` takes."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(
        "benchmarks.roofline is not a command. benchmarks.train prints the limit that it computes. "
        "Run that with --help."
    )
