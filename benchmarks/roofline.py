"""The least time a device can take for a training step: its operations, and its memory traffic.

Counted are the convolutions, from the model itself. Every other part (batch norm, activations,
pooling, upsampling, dropout, the loss) works voxel by voxel on maps that some convolution reads or
writes anyway, so it could be done on the way. It is the limit of the layers as they are written:
maps are counted at the size at which they enter a convolution, and one that reads an upsampled map
before it is upsampled moves an eighth of it, which in the paper's training in bfloat16 would save
12 % of the bytes. Williams et al., "Roofline", CACM 2009.
"""

import math
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
    """One convolution, as often as a batch asks for it."""

    name: str
    kernel: tuple[int, ...]  # (K, K, K, Cin, Cout)
    voxels: int  # of the batch and both visits; 'same' padding, stride 1: before as after
    bytes_per_number: int  # of feature maps and, where it is applied, the kernel
    reads_images: bool  # which nobody asks the gradient of

    @property
    def operations(self) -> int:
        """Of one pass: a multiplication and an addition for each weight and output voxel, with
        the zeros of the padding. The gradient by the input takes as many, that by the kernel too.
        """
        return 2 * math.prod(self.kernel) * self.voxels

    @property
    def forward_bytes(self) -> int:
        """Input and kernel read, output written, once each."""
        return self._bytes(self.kernel[3] + self.kernel[4])

    @property
    def training_operations(self) -> int:
        """Forward, the gradient by the kernel, and that by the input."""
        return (2 if self.reads_images else 3) * self.operations

    @property
    def training_bytes(self) -> int:
        """Forward; then the output's gradient, input and kernel are read, and the gradients of
        input and kernel written, once each."""
        by_input = 0 if self.reads_images else self.kernel[3]
        backward = self._bytes(self.kernel[3] + self.kernel[4] + by_input)
        return self.forward_bytes + backward + math.prod(self.kernel) * self.bytes_per_number

    def _bytes(self, maps: int) -> int:
        return (maps * self.voxels + math.prod(self.kernel)) * self.bytes_per_number


@dataclass(frozen=True)
class Device:
    """What a device can do at most, by its maker or as measured."""

    bandwidth_gb_s: float  # 1e9 bytes of its memory per second
    peak_tflop_s: float  # 1e12 operations per second

    def least_seconds(self, layers: list[Layer]) -> float:
        """Of a training step: memory and arithmetic can at best work at the same time."""
        moving_s = sum(layer.training_bytes for layer in layers) / (self.bandwidth_gb_s * 1e9)
        reckoning_s = sum(layer.training_operations for layer in layers) / (
            self.peak_tflop_s * 1e12
        )
        return max(moving_s, reckoning_s)


# By device kind, as JAX calls it: GB/s, and TFLOP/s by compute dtype. NVIDIA's data sheets of H100
# (SXM) and H200: tensor cores without sparsity, in TF32 where the feature maps are float32, as
# convolutions are.
HOPPER_TFLOP_S = {"float32": 494.0, "bfloat16": 989.0}
DEVICES = {
    "NVIDIA H100 80GB HBM3": (3350.0, HOPPER_TFLOP_S),
    "NVIDIA H200": (4800.0, HOPPER_TFLOP_S),
}


def known_device(kind: str, compute_dtype: str) -> Device | None:
    """The device of the table; None if it is not in there."""
    if kind not in DEVICES:
        return None
    bandwidth_gb_s, peaks = DEVICES[kind]
    return Device(bandwidth_gb_s, peaks[compute_dtype])


def count_layers(
    config: Configuration, batch_size: int, compute_dtype: str = "float32"
) -> list[Layer]:
    """Return the convolutions of one pass of `batch_size` patch pairs; nothing is computed."""
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
                    reads_images=not layers,  # the first
                )
            )
        return output

    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
        )
    return layers


def measured_cpu() -> Device:
    """What the processors of this process do at best, with NumPy: a copy, a product of matrices."""
    threads, numbers, side = processors(), 2**26, 2048
    halves = [np.ones((2, numbers // threads), np.float32) for _ in range(threads)]
    square = np.ones((side, side), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        copying_s = _shortest_s(lambda: list(pool.map(lambda a: np.copyto(a[0], a[1]), halves)))
    multiplying_s = _shortest_s(lambda: square @ square)
    # A copy reads each number and writes it.
    return Device(2 * 4 * numbers / copying_s / 1e9, 2 * side**3 / multiplying_s / 1e12)


def _shortest_s(work) -> float:
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
