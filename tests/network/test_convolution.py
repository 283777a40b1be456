"""Compare conv3d, native and in plain JAX, with lax.conv_general_dilated: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from msseg_jax.network import convolution, native
from tests.support.session import HAS_NATIVE


@pytest.fixture
def conv3d(form):
    """Return `convolution.conv3d` for one input. Tests run with both forms for a CPU."""
    return lambda x, kernel: convolution.conv3d((x,), kernel)


def reference(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=lax.Precision.HIGHEST,
    )


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def value_and_gradients(conv):
    """Return a compiled function that maps (x, kernel, dy) to (y, dx, dkernel)."""

    def run(x, kernel, dy):
        y, pull = jax.vjp(conv, x, kernel)
        return y, *pull(dy)

    return jax.jit(run)


def assert_all_close(found, expected):
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-4 * float(jnp.abs(e).max()))


@pytest.mark.parametrize("k", [1, 3])
def test_bfloat16_results_are_bfloat16_and_accurate_to_its_precision(conv3d, k):
    x, kernel, dy = arrays((2, 5, 6, 7, 3), (k, k, k, 3, 4), (2, 5, 6, 7, 4))
    half = [array.astype(jnp.bfloat16) for array in (x, kernel, dy)]
    found = value_and_gradients(conv3d)(*half)
    expected = value_and_gradients(reference)(*(array.astype(jnp.float32) for array in half))
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            f.astype(jnp.float32), e, rtol=2**-7, atol=2**-7 * float(jnp.abs(e).max())
        )


@pytest.mark.parametrize(
    ("batch", "sides", "c_in", "c_out", "k"),
    [
        (2, (5, 6, 7), 3, 2, 3),
        (1, (13, 14, 15), 1, 6, 3),
        (3, (9, 4, 4), 6, 1, 3),
        (1, (1, 1, 1), 8, 8, 3),
        (2, (2, 2, 2), 2, 3, 3),
        (1, (3, 1, 2), 2, 3, 3),
        (2, (5, 6, 7), 3, 2, 1),
        (1, (9, 17, 35), 25, 7, 3),
        (1, (4, 5, 6), 3, 19, 3),  # more outputs than one block has
        (2, (11, 5, 6), 10, 11, 1),
    ],
)
def test_values_and_gradients_equal_those_of_the_direct_convolution(
    conv3d, batch, sides, c_in, c_out, k
):
    x, kernel, dy = arrays((batch, *sides, c_in), (k, k, k, c_in, c_out), (batch, *sides, c_out))
    assert_all_close(
        value_and_gradients(conv3d)(x, kernel, dy), value_and_gradients(reference)(x, kernel, dy)
    )


def test_a_kernel_with_one_tap_shifts_the_volume_and_pads_with_zeros(conv3d):
    x = jnp.arange(1.0, 61.0).reshape(1, 3, 4, 5, 1)
    # The tap reads the next plane, the same row and the previous column.
    kernel = jnp.zeros((3, 3, 3, 1, 1)).at[2, 1, 0].set(1.0)
    expected = np.zeros((3, 4, 5))
    expected[:2, :, 1:] = np.asarray(x)[0, 1:, :, :4, 0]
    np.testing.assert_array_equal(conv3d(x, kernel)[0, ..., 0], expected)


def test_works_for_a_batch_of_kernels_under_vmap(conv3d):
    x, kernel, dy = arrays((2, 2, 5, 6, 7, 3), (2, 3, 3, 3, 3, 2), (2, 2, 5, 6, 7, 2))
    assert_all_close(
        jax.vmap(value_and_gradients(conv3d))(x, kernel, dy),
        jax.vmap(value_and_gradients(reference))(x, kernel, dy),
    )


def test_works_without_jit(conv3d):
    x, kernel = arrays((1, 3, 4, 5, 2), (3, 3, 3, 2, 2))
    assert_all_close([conv3d(x, kernel)], [reference(x, kernel)])


def test_works_on_four_devices_under_pmap(conv3d):
    x, kernel, dy = arrays((4, 2, 5, 6, 7, 3), (4, 3, 3, 3, 3, 2), (4, 2, 5, 6, 7, 2))
    assert_all_close(
        jax.pmap(value_and_gradients(conv3d))(x, kernel, dy),
        jax.vmap(value_and_gradients(reference))(x, kernel, dy),
    )


@pytest.mark.usefixtures("conv3d")
def test_several_inputs_act_like_their_concatenation():
    x, kernel, dy = arrays((2, 5, 6, 7, 9), (3, 3, 3, 9, 4), (2, 5, 6, 7, 4))

    def in_parts(x, kernel):
        return convolution.conv3d((x[..., :1], x[..., 1:7], x[..., 7:]), kernel)

    assert_all_close(
        value_and_gradients(in_parts)(x, kernel, dy), value_and_gradients(reference)(x, kernel, dy)
    )


@pytest.mark.usefixtures("conv3d")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("sides", "channels", "c_out"),  # `channels` of full and half size
    [
        ((8, 4, 6), (2, 3), 4),
        ((2, 2, 2), (1, 1), 1),
        ((10, 6, 40), (9, 10), 11),  # more channels than one block has
        ((20, 36, 58), (1, 2), 2),  # several tasks and chunks
    ],
)
def test_inputs_of_half_size_act_like_upsampled_ones(sides, channels, c_out, dtype):
    half_sides = tuple(side // 2 for side in sides)
    whole, half, kernel, dy = (
        array.astype(dtype)
        for array in arrays(
            (2, *sides, channels[0]),
            (2, *half_sides, channels[1]),
            (3, 3, 3, sum(channels), c_out),
            (2, *sides, c_out),
        )
    )

    def in_place(x, kernel):
        return convolution.conv3d(x, kernel)

    def upsampled(x, kernel):
        # The result does not depend on `upsample` of the package.
        large = x[1].repeat(2, 1).repeat(2, 2).repeat(2, 3)
        return reference(jnp.concatenate([x[0], large], -1), kernel)

    found = value_and_gradients(in_place)((whole, half), kernel, dy)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), ((whole, half), kernel, dy))
    expected = value_and_gradients(upsampled)(*wide)
    tolerance = 1e-4 if dtype == "float32" else 2**-7
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert f.dtype == dtype
        assert f.shape == e.shape
        atol = tolerance * float(jnp.abs(e).max())
        np.testing.assert_allclose(f.astype(jnp.float32), e, rtol=tolerance, atol=atol)


@pytest.mark.usefixtures("conv3d")
@pytest.mark.parametrize("relu", [False, True])
def test_bias_and_relu_are_applied_in_the_same_pass(relu):
    x, kernel, bias = arrays((2, 5, 6, 7, 3), (3, 3, 3, 3, 10), (10,))
    expected = reference(x, kernel) + bias[None, None, None, None]
    parts = x[..., :2], x[..., 2:]
    found = jax.jit(lambda *a: convolution.conv3d_bias(parts, *a, relu=relu))(kernel, bias)
    assert_all_close([found], [jnp.maximum(expected, 0) if relu else expected])


@pytest.mark.usefixtures("conv3d")
def test_nan_survives_relu():
    x, kernel, bias = arrays((1, 5, 6, 7, 2), (3, 3, 3, 2, 5), (5,))
    x = x.at[0, 2, 3, 4, 1].set(jnp.nan)
    found = convolution.conv3d_bias((x,), kernel, bias, relu=True)
    # In the plain form NaN spreads further, because it works on blocks of voxels.
    assert np.isnan(found[0, 1:4, 2:5, 3:6]).all()


def test_the_kernel_gradient_is_bit_identical_every_time(conv3d):
    x, kernel, dy = arrays((2, 17, 20, 21, 6), (3, 3, 3, 6, 6), (2, 17, 20, 21, 6))
    run = value_and_gradients(conv3d)
    first = run(x, kernel, dy)
    for _ in range(5):
        for one, other in zip(first, run(x, kernel, dy), strict=True):
            np.testing.assert_array_equal(one, other)


def test_only_a_program_for_a_gpu_contains_3d_convolutions(conv3d):
    x, kernel, dy = arrays((1, 8, 8, 8, 2), (3, 3, 3, 2, 2), (1, 8, 8, 8, 2))
    traced = value_and_gradients(conv3d).trace(x, kernel, dy)
    for platform, convolutions_3d in (("cpu", 0), ("cuda", 3)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        found = sum("[b, 0, 1, 2, f]" in line or "0, 1, 2" in line for line in lines)
        assert found == convolutions_3d, (platform, lines)


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "message"),
    [
        ((1, 8, 8, 8, 2), (5, 5, 5, 2, 2), r"\(5, 5, 5, 2, 2\); expected \(3, 3, 3"),
        ((1, 8, 8, 8, 2), (3, 3, 2, 2), r"\(3, 3, 2, 2\); expected \(3, 3, 3"),
        ((1, 8, 8, 8, 2), (3, 3, 3, 4, 2), "expects 4 channels, but the inputs have 2"),
        ((8, 8, 8, 2), (3, 3, 3, 2, 2), r"\(8, 8, 8, 2\)\]; expected \(B, D, H, W, C\)"),
        ((0, 8, 8, 8, 2), (3, 3, 3, 2, 2), r"\(0, 8, 8, 8, 2\)\]; expected .* not empty"),
        ((1, 8, 0, 8, 2), (1, 1, 1, 2, 2), r"\(1, 8, 0, 8, 2\)\]; expected .* not empty"),
    ],
)
def test_wrong_shapes_are_refused_and_named(x_shape, kernel_shape, message):
    with pytest.raises(ValueError, match=message):
        convolution.conv3d((jnp.zeros(x_shape),), jnp.zeros(kernel_shape))


def test_wrong_dtypes_and_biases_are_refused():
    x, kernel = jnp.zeros((1, 8, 8, 8, 2)), jnp.zeros((3, 3, 3, 2, 4))
    with pytest.raises(ValueError, match=r"inputs are \['bfloat16'\], the kernel is float32"):
        convolution.conv3d((x.astype(jnp.bfloat16),), kernel)
    with pytest.raises(ValueError, match=r"bias is float32\(1,\); expected float32\(4,\)"):
        convolution.conv3d_bias((x,), kernel, jnp.zeros(1), relu=False)


@pytest.mark.parametrize(("sides", "kernel_size"), [((4, 4, 4), 1), ((2, 2, 2), 3), ((4, 4, 2), 3)])
def test_inputs_of_other_sizes_are_refused(sides, kernel_size):
    inputs = jnp.zeros((1, 8, 8, 8, 2)), jnp.zeros((1, *sides, 2))
    with pytest.raises(ValueError, match="or half of D, H and W if the kernel is 3x3x3"):
        convolution.conv3d(inputs, jnp.zeros((kernel_size,) * 3 + (4, 2)))


@pytest.mark.skipif(not HAS_NATIVE, reason="no C++ compiler, or JAX is on a GPU")
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("shape", [(0, 4, 4, 4, 2), (1, 4, 0, 4, 2)])
def test_the_native_kernel_gradient_of_nothing_is_zero(shape, kernel_size):
    assert native.available()
    x = jnp.zeros(shape)
    found = native.kernel_gradient((x,), x, kernel_size)
    np.testing.assert_array_equal(found, np.zeros((kernel_size,) * 3 + (2, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_random_shapes(conv3d, seed):
    """Rows shorter and longer than a vector, odd sides, and more channels than one block has."""
    rng = np.random.default_rng(seed)
    k = int(rng.choice([1, 3, 3, 3]))
    sides = (*rng.integers(1, 20, 2), rng.choice([*range(1, 19), 31, 32, 33, 47, 63]))
    c_in, c_out = rng.integers(1, 26, 2)
    x, kernel, dy = arrays((2, *sides, c_in), (k, k, k, c_in, c_out), (2, *sides, c_out))
    assert_all_close(
        value_and_gradients(conv3d)(x, kernel, dy), value_and_gradients(reference)(x, kernel, dy)
    )
