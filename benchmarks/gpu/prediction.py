"""Predict the time of a training step on one H100 with the Pallas kernels, before it is measured.

Usage: python -m benchmarks.gpu.prediction
For each pass of each convolution, the time is the larger of two: the bytes that it must move, and
the products that the tensor cores compute, with all zeros of the wide voxels and of the padding.
The best block is taken. Everything else in a step (batch norm, activation, dropout, pooling)
moves each output of a convolution a few times more. Everything is added up, without overlap.
"""

import math

# Assumptions:
COPY_BYTES_S = 3.0e12  # bytes that a copy reads and writes per second; the maker states 3.35e12
REACHED = 0.3  # share of the tensor cores' peak that such small products reach
OTHER_PASSES = 8  # how often the rest of a step reads or writes each output of a convolution
BLOCKS = (2, 4, 8)


def main() -> None:
    """Print the prediction for float32 and bfloat16."""
    from benchmarks.roofline import HOPPER_TFLOP_S
    from msseg_jax.configuration.files import find, read
    from msseg_jax.network.layers import find_layers, training_jobs
    from msseg_jax.network.model import SiameseMPUNet

    config = read(find("msseg2"))
    side, pairs = config.data.patch_size, config.train.batch_size
    print(f"{'':<10}{'convolutions, ms':>18}{'the rest, ms':>14}{'step, ms':>10}")
    for dtype, peak in HOPPER_TFLOP_S.items():
        model = SiameseMPUNet(config.model, compute_dtype=dtype)
        layers = find_layers(model, pairs, (side,) * 3)
        rate = REACHED * peak * 1e12
        convolutions_s = sum(job_s(job, rate) for job in training_jobs(layers))
        outputs = sum(numbers(layer.shape, layer.shape.features) for layer in layers)
        rest_s = OTHER_PASSES * outputs * item_bytes(dtype) / COPY_BYTES_S
        total_ms = (convolutions_s + rest_s) * 1e3
        print(f"{dtype:<10}{convolutions_s * 1e3:>18.1f}{rest_s * 1e3:>14.1f}{total_ms:>10.1f}")


def numbers(layer, channels: int) -> int:
    """Return how many numbers so many channels of a layer have."""
    return layer.batch * math.prod(layer.sides) * channels


def item_bytes(dtype: str) -> int:
    """Return the bytes of a number."""
    return 2 if dtype == "bfloat16" else 4


def job_s(job, rate: float) -> float:
    """Return the predicted seconds of a pass."""
    layer = job.layer
    moved = numbers(layer, sum(layer.channels) + layer.features) * item_bytes(layer.dtype)
    return max(moved / COPY_BYTES_S, min(products(job, block) for block in BLOCKS) / rate)


def products(job, block: int) -> float:
    """Return the operations of a pass with all zeros that the Pallas kernels multiply."""
    from msseg_jax.network.convolution.kernels import _padded_size, _power_of_two

    layer = job.layer
    if layer.kernel_size == 1:
        return 2 * numbers(layer, sum(layer.channels) * layer.features)
    wide_voxels = layer.batch * layer.sides[0] * layer.sides[1] * -(-layer.sides[2] // block)
    pairs = [(c, layer.features) for c in layer.channels]
    if job.which == "input gradient":
        pairs = [(f, c) for c, f in pairs]
    sizes = sum(_padded_size((block + 2) * c) * _power_of_two(block * f) for c, f in pairs)
    return 2 * 9 * wide_voxels * sizes


if __name__ == "__main__":
    main()
