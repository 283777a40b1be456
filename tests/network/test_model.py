import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.configuration.files import shipped, typed
from msseg_jax.configuration.sections import NetworkSettings
from msseg_jax.network.convolution.upsampling import upsample
from msseg_jax.network.layer_table import layer_table
from msseg_jax.network.model import (
    DECODER_MAPS,
    drop_maps,
    dropout_draws,
    initial_variables,
    max_pool,
)
from tests.support.runs import build_model, with_random_output


@pytest.fixture(scope="module")
def network():
    """Return the paper's network, its variables, and random visits with two 8^3 patches each."""
    model = build_model(shipped("msseg2"))
    visits = np.random.default_rng(0).normal(size=(2, 2, 8, 8, 8, 1)).astype(np.float32)
    return model, with_random_output(initial_variables(model, seed=0)), visits


@pytest.fixture(scope="module")
def forward(network):
    model, variables, _ = network
    return jax.jit(lambda one, other: model.apply(variables, one, other, train=False))


def test_has_the_papers_28_convolutions_and_40465_parameters(network):
    _, variables, _ = network
    leaves = jax.tree.leaves(variables["params"])
    assert sum(leaf.size for leaf in leaves) == 40_465
    assert sum(leaf.ndim == 5 for leaf in leaves) == 28


def test_the_layer_table_ends_with_the_papers_numbers():
    lines = layer_table(NetworkSettings(), 56).splitlines()
    assert lines[-2:] == ["convolutions: 28", "parameters: 40465"]
    # X(0, 3) has three inputs with 6 maps and one with 7, and a scale and a bias for 6 outputs.
    assert "segmentation/node_0_3/unit_0" in lines[21]
    assert lines[21].split()[1:] == ["3x3x3", "56x56x56x25", "56x56x56x6", "4,062"]
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines[1:29]) == 40_465


def test_widths_and_targets_come_from_the_configuration():
    config = shipped("msseg2")
    config.model.widths = (2, 3, 4)
    config.model.targets = 1
    config.model.refinement_convolutions = 1
    # 6 nodes with 2 convolutions each, 2 decoders, 1 refinement, 1 output
    assert "convolutions: 16" in layer_table(typed(config).model, config.data.patch_size)


def test_both_visits_share_one_segmentation_block(network):
    _, variables, _ = network
    assert set(variables["params"]) == {"segmentation", "refinement"}
    assert len(variables["params"]["segmentation"]) == 10 + 3  # one set of nodes and decoders


def test_a_convolution_before_batch_norm_has_no_bias_and_the_output_has_one(network):
    _, variables, _ = network
    for block in variables["params"]["segmentation"].values():
        for unit in [block] if "convolution" in block else block.values():
            assert set(unit["convolution"]) == {"kernel"}
    assert variables["params"]["refinement"]["output"]["bias"].shape == (5,)


def test_the_decoder_maps_of_both_visits_can_be_taken_out(network, forward):
    model, variables, visits = network
    assert set(variables) == {"params", "batch_stats"}  # no map is kept with the variables

    def with_maps(one, other):
        return model.apply(variables, one, other, train=False, mutable=["intermediates"])

    output, kept = jax.jit(with_maps)(*visits)
    np.testing.assert_allclose(output, forward(*visits), atol=1e-6)
    (maps,) = kept["intermediates"][DECODER_MAPS]
    assert maps.shape == (4, 8, 8, 8, 3)
    assert 0 < maps.min() < maps.max() < 1
    # The first visits come first: with the visits exchanged, the halves are exchanged.
    _, exchanged = jax.jit(with_maps)(*visits[::-1])
    (other,) = exchanged["intermediates"][DECODER_MAPS]
    np.testing.assert_allclose(other, jnp.concatenate([maps[2:], maps[:2]]), atol=1e-6)
    assert np.abs(maps[:2] - maps[2:]).max() > 0.01


def test_gives_a_probability_per_voxel_and_target(network, forward):
    _, _, visits = network
    output = np.asarray(forward(*visits))
    assert output.shape == (2, 8, 8, 8, 5)
    assert 0 < output.min() < output.max() < 1


def test_an_untrained_network_predicts_the_initial_probability_everywhere():
    config = shipped("msseg2")
    config.model.widths = (2, 2)
    config.model.initial_probability = 0.02
    model = build_model(config)
    visits = np.random.default_rng(0).normal(size=(2, 1, 4, 4, 4, 1)).astype(np.float32)
    output = model.apply(initial_variables(model, seed=0), *visits, train=False)
    np.testing.assert_allclose(output, 0.02, rtol=1e-5)


def test_the_order_of_the_visits_matters(network, forward):
    _, _, (time01, time02) = network
    difference = forward(time01, time02) - forward(time02, time01)
    assert np.abs(np.asarray(difference)).max() > 1e-3


@pytest.fixture(scope="module")
def statistics(network):
    """Return a function that gives the first batch norm's running statistics after one step."""
    model, variables, _ = network

    @jax.jit
    def after_a_step(one, other):
        _, updates = model.apply(
            variables, one, other, train=True, patch_ids=jnp.arange(2),
            rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"],
        )  # fmt: skip
        return updates["batch_stats"]["segmentation"]["node_0_0"]["unit_0"]["norm"]

    return after_a_step


def test_batch_statistics_of_the_segmentation_do_not_depend_on_the_order(network, statistics):
    _, _, (time01, time02) = network
    forth, back = statistics(time01, time02), statistics(time02, time01)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), forth, back)


def test_running_statistics_change_by_a_tenth(network, statistics):
    _, variables, visits = network
    kernel = variables["params"]["segmentation"]["node_0_0"]["unit_0"]["convolution"]["kernel"]
    maps = jax.lax.conv_general_dilated(
        visits.reshape(4, 8, 8, 8, 1), kernel, (1, 1, 1), "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )  # fmt: skip
    norm = statistics(*visits)
    np.testing.assert_allclose(norm["mean"], 0.1 * maps.mean((0, 1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(norm["var"], 0.9 + 0.1 * maps.var((0, 1, 2, 3)), rtol=1e-4)


def test_max_pool_and_upsample_match_values_computed_by_hand():
    x = jnp.arange(4 * 2 * 2, dtype=jnp.float32).reshape(1, 4, 2, 2, 1)
    assert max_pool(x).ravel().tolist() == [7, 15]
    up = upsample(jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2, 1))
    assert up.shape == (1, 2, 2, 4, 1)
    assert up[0, 1, 0, :, 0].tolist() == [1, 1, 2, 2]


def test_dropout_drops_whole_maps_and_keeps_the_mean():
    draws = dropout_draws(jax.random.key(3), jnp.arange(64), 50)
    maps = np.asarray(drop_maps(jnp.ones((64, 2, 2, 2, 50)), draws, 0.1)).reshape(64, 8, 50)
    assert (maps == maps[:, :1]).all()  # a map is dropped whole or not at all
    np.testing.assert_allclose(np.unique(maps), [0, 1 / 0.9], rtol=1e-6)
    assert (maps[:, 0] == 0).mean() == pytest.approx(0.1, abs=0.02)


def test_dropout_depends_on_the_sample_and_not_on_its_position():
    one = dropout_draws(jax.random.key(0), jnp.array([5, 6, 7]), 40)
    other = dropout_draws(jax.random.key(0), jnp.array([7, 5, 6]), 40)
    np.testing.assert_array_equal(one, other[jnp.array([1, 2, 0])])
    assert (one[0] != one[1]).all()


@pytest.mark.parametrize("side", [12, 4, 57])
def test_refuses_a_side_that_cannot_be_halved_three_times(network, side):
    model, variables, _ = network
    visit = jnp.zeros((1, 8, side, 8, 1))
    with pytest.raises(ValueError, match=f"patch side {side} is not a multiple of 8"):
        model.apply(variables, visit, visit, train=False)


def test_refuses_visits_of_different_shape(network):
    model, variables, _ = network
    with pytest.raises(ValueError, match="time01 has shape"):
        model.apply(variables, jnp.zeros((1, 8, 8, 8, 1)), jnp.zeros((1, 8, 8, 16, 1)), train=False)
