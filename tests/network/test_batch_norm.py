"""Compare our batch norm with that of Flax: values and gradients, on one device and on four."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.network.batch_norm import BatchNorm

# Devices, B, D, H, W, C. The native sums handle 990 voxels in more than one chunk.
SHAPE = (4, 2, 9, 10, 11, 3)


def ours(axis_name):
    return BatchNorm(features=3, momentum=0.9, epsilon=1e-5, axis_name=axis_name)


def flax(axis_name):
    return nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, axis_name=axis_name)


def run(norm, variables, x, dy):
    """Return the output, the new statistics, and the gradients for one device's share of x."""

    def loss(params, x):
        y, updates = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.sum(y * dy), (y, updates["batch_stats"])

    gradients, (y, stats) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
    return y, stats, gradients


@pytest.fixture
def case():
    generator = np.random.default_rng(0)
    x = (3 + 2 * generator.standard_normal(SHAPE)).astype(np.float32)
    dy = generator.standard_normal(x.shape).astype(np.float32)
    variables = {
        "params": {"scale": jnp.array([0.5, 1.5, -2.0]), "bias": jnp.array([0.1, 0.0, -1.0])},
        "batch_stats": {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([1.0, 0.5, 2.0])},
    }
    return variables, x, dy


@pytest.mark.usefixtures("form")
def test_values_statistics_and_gradients_equal_those_of_flax(case):
    variables, x, dy = case
    found, expected = (run(norm(None), variables, x[0], dy[0]) for norm in (ours, flax))
    assert_close(found, expected)


@pytest.mark.usefixtures("form")
def test_four_devices_give_the_same_as_flax(case):
    variables, x, dy = case

    def on_devices(norm):
        one = partial(run, norm("devices"), variables)
        return jax.pmap(one, axis_name="devices")(x, dy)

    assert_close(on_devices(ours), on_devices(flax))


def assert_close(found, expected):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), found, expected)


def test_running_statistics_give_a_scale_and_a_shift(case):
    variables, x, _ = case
    scale, shift = map(np.asarray, ours(None).apply(variables, method="running"))
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(x * scale + shift, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("form")
def test_a_constant_channel_becomes_its_bias(case):
    variables, x, _ = case
    x = np.full_like(x[0], 7.0)
    y, stats, gradients = run(ours(None), variables, x, np.ones_like(x))
    np.testing.assert_allclose(y, np.broadcast_to([0.1, 0.0, -1.0], y.shape), atol=2e-3)
    assert np.isfinite(np.asarray(gradients[1])).all()
    np.testing.assert_allclose(stats["mean"], 0.9 * np.array([1, 2, 3]) + 0.7, rtol=1e-5)
