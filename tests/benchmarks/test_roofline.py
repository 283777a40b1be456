"""Tests of the operations and bytes that `benchmarks.roofline` counts."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks.roofline import Device, Layer, count_layers, known_device
from msseg_jax.configuration.files import find, read


@pytest.fixture(scope="module")
def layers():
    """Return the layers of the paper's network for one patch pair."""
    return count_layers(read(find("msseg2")), batch_size=1)


def operations(function, *shapes) -> float:
    """Return the number of operations that XLA counts for a function."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def convolve(x, kernel):
    dimensions = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "VALID", dimension_numbers=dimensions)


def test_a_forward_pass_of_a_patch_pair_takes_11_2_gflop(layers):
    # `operations` is 11.5e9, because it includes the zeros of the padding.
    assert sum(layer.operations for layer in layers) == pytest.approx(11.2e9, rel=0.03)


def test_every_layer_takes_the_operations_that_xla_counts(layers):
    assert len(layers) == 28
    for layer in layers:
        # The zeros of the padding are part of this input. If XLA padded it itself, it would not
        # count them.
        side = layer.kernel[0] - 1
        shape = (1, layer.voxels + side, 1 + side, 1 + side, layer.kernel[3])
        assert operations(convolve, shape, layer.kernel) == layer.operations


def test_a_training_step_takes_the_operations_that_xla_counts():
    layer = Layer("", (1, 1, 1, 5, 4), 6**3, 4, reads_images=False)

    def gradients(x, kernel, dy):
        y, pull = jax.vjp(convolve, x, kernel)
        return y, pull(dy)

    shapes = (1, 6, 6, 6, 5), layer.kernel, (1, 6, 6, 6, 4)
    assert operations(gradients, *shapes) == layer.training_operations


def test_the_gradient_by_the_images_is_not_counted(layers):
    first = 2 * 27 * 1 * 6 * 2 * 56**3
    assert [layer.reads_images for layer in layers] == [True] + [False] * 27
    assert layers[0].operations == first
    assert layers[0].training_operations == 2 * first
    assert layers[1].training_operations == 3 * layers[1].operations


def test_each_array_is_moved_once_forward_and_once_backward():
    layer = Layer("", (3, 3, 3, 2, 5), voxels=100, bytes_per_number=4, reads_images=False)
    x, dy, kernel = 200 * 4, 500 * 4, 27 * 10 * 4
    assert layer.forward_bytes == x + kernel + dy
    assert layer.training_bytes == layer.forward_bytes + (x + dy + kernel) + (x + kernel)


def test_all_layers_but_the_output_use_the_compute_dtype(layers):
    narrow = count_layers(read(find("msseg2")), 1, "bfloat16")
    for wide, half in zip(layers[:-1], narrow[:-1], strict=True):
        assert half.training_bytes * 2 == wide.training_bytes
    assert narrow[-1] == layers[-1]


def test_upsampling_inside_the_convolutions_would_save_12_percent_of_the_bytes():
    """Check the share that the docstring of `roofline` states: 1.71 of 14.47 GB."""
    config = read(find("msseg2"))
    moved = sum(layer.training_bytes for layer in count_layers(config, 40, "bfloat16"))
    widths, side = config.model.widths, config.data.patch_size
    # At each depth, all nodes except the first read one set of upsampled maps, for both visits.
    numbers = sum(
        (len(widths) - 1 - depth) * widths[depth + 1] * 2 * 40 * (side // 2**depth) ** 3
        for depth in range(len(widths) - 1)
    )
    # The maps are read in the forward and the backward pass, and their gradient is written. Each
    # number has 2 bytes. Reading the maps before they are upsampled would save 7/8 of this.
    saved = 3 * 2 * numbers * 7 / 8
    assert moved == pytest.approx(14.47e9, rel=1e-3)
    assert saved == pytest.approx(1.71e9, rel=5e-3)
    assert saved / moved == pytest.approx(0.118, abs=5e-4)


def test_a_batch_of_40_pairs_takes_40_times_the_operations(layers):
    forty = count_layers(read(find("msseg2")), batch_size=40)
    assert math.fsum(layer.operations for layer in forty) == 40 * sum(
        layer.operations for layer in layers
    )


def test_the_slower_of_memory_and_arithmetic_sets_the_limit():
    layer = Layer("", (1, 1, 1, 1, 1), voxels=10**6, bytes_per_number=4, reads_images=False)
    assert layer.training_operations == 6e6
    assert layer.training_bytes == pytest.approx(20e6, rel=1e-4)
    assert Device(1.0, 1e-3).least_seconds([layer]) == pytest.approx(0.02, rel=1e-4)
    assert Device(1.0, 1e-4).least_seconds([layer]) == pytest.approx(0.06)


def test_devices_are_looked_up_by_the_name_that_jax_reports():
    assert known_device("NVIDIA H200", "bfloat16") == Device(4800, 989)
    assert known_device("NVIDIA H200", "float32") == Device(4800, 494)
    assert known_device("NVIDIA H100 80GB HBM3", "float32") == Device(3350, 494)
    assert known_device("cpu", "float32") is None
