"""Compare every form of the convolution with the plain one, and lower the candidates for CUDA."""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.network.convolution import kernels as pallas
from msseg_jax.network.convolution.blocked import BLOCKED
from msseg_jax.network.convolution.candidates import CANDIDATES
from msseg_jax.network.convolution.kernels import kernels
from msseg_jax.network.convolution.padded import PADDED
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.convolution.shifted import shifted
from msseg_jax.network.convolution.wide import wide
from tests.support.convolutions import all_passes, arrays, expected_passes

# On a CPU, Pallas kernels are interpreted.
FORMS = {
    form.name: form
    for form in (
        BLOCKED, PADDED, wide(4), wide(8), shifted(4), shifted(8),
        *(kernels(block, interpret=True) for block in (2, 4, 8)),
    )
}  # fmt: skip
# Other block sizes are tested at length only.
SLOW = ("wide 4", "shifted 4", "kernels 2", "kernels 8")
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FORMS]
XLA_FORMS = [name for name in FORMS if not name.startswith("kernels")]
# batch, sides, channels of the inputs, Cout
SHAPES = [
    (2, (5, 6, 7), (3, 2), 4),  # odd sides, two inputs
    (1, (8, 8, 8), (6, 6, 7), 6),  # a node of the network, with fewer voxels
    (1, (3, 4, 19), (6,), 1),  # one output, a last block that is not full
    (2, (1, 1, 1), (1,), 6),  # one voxel
]
# Relative to the norm of the right result. bfloat16 has 8 bits, so it is rounded by at most 2^-9.
TOLERANCES = {"float32": 1e-6, "bfloat16": 3e-3}


def assert_close(found, expected, dtype):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        wide_one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        error = np.linalg.norm(wide_one - other) / np.linalg.norm(other)
        assert error <= TOLERANCES[dtype], error


# bfloat16 differs only in rounding, so one shape is enough.
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [*((shape, "float32") for shape in SHAPES), (SHAPES[0], "bfloat16")],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_all_passes_agree_with_the_plain_form(name, shape, dtype):
    given = arrays(*shape, 3, dtype)
    found = jax.jit(lambda *a: all_passes(FORMS[name], *a))(*given)
    assert_close(found, expected_passes(*given), dtype)


@pytest.mark.parametrize("name", XLA_FORMS)
def test_a_kernel_of_one_voxel_is_a_matrix_product(name):
    given = arrays(2, (5, 6, 7), (3, 2), 4, 1, "float32")
    assert_close(all_passes(FORMS[name], *given), expected_passes(*given), "float32")


@pytest.mark.parametrize("block", [2, 4, 8])
def test_the_pallas_kernels_stay_within_their_arrays(block, monkeypatch):
    """On a GPU, a wrong position would not raise an error, as it does in NumPy."""
    monkeypatch.setattr(pallas, "_load", lambda ref, places, mask: (places, mask))
    batch, d, h, w, channels, features = 2, 3, 4, 13, 3, 5
    x = jnp.arange(batch * d * h * w * channels).reshape(batch, d, h, w, channels)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, block + 1), (0, 0)), constant_values=-1)
    grid = pallas._Grid.of(x, block)
    blocks = -(-w // block)
    written = np.zeros(batch * d * h * w * features, int)
    for first_row in range(0, (grid.tiles + 1) * pallas.ROWS, pallas.ROWS):  # and one tile more
        rows = first_row + jnp.arange(pallas.ROWS, dtype=jnp.int32)
        places, mask = grid.places(features, rows, pallas._power_of_two(block * features))
        np.add.at(written, np.asarray(places)[np.asarray(mask)], 1)
        for tap in range(9):
            for first, size in pallas._parts((block + 2) * channels):
                places, mask = map(
                    np.asarray, grid.load(None, channels, rows, jnp.int32(tap), first, size)
                )
                for k in range(pallas.ROWS):
                    if first_row + k >= grid.rows:
                        assert not mask[k].any()
                        continue
                    line, column = divmod(first_row + k, blocks)
                    volume, y = divmod(line, h)
                    volume, z = divmod(volume, d)
                    start = column * block
                    wide = padded[volume, z + tap // 3, y + tap % 3, start : start + block + 2]
                    expected = np.full(size, -1)
                    part = wide.ravel()[first : first + size]
                    expected[: len(part)] = part
                    np.testing.assert_array_equal(np.where(mask[k], places[k], -1), expected)
    assert (written == 1).all(), "each number of the output is written once"


def test_the_pallas_kernels_refuse_kernels_of_one_voxel():
    inputs, kernel, dy = arrays(1, (4, 4, 4), (3,), 2, 1, "float32")
    for run in (
        lambda: FORMS["kernels 4"].forward(inputs, kernel),
        lambda: FORMS["kernels 4"].kernel_gradient(inputs, dy, 1),
    ):
        with pytest.raises(NotImplementedError, match="only for 3x3x3"):
            run()


def test_the_pallas_kernels_refuse_arrays_that_32_bits_cannot_count():
    x = jax.ShapeDtypeStruct((1, 1, 2**15, 2**14, 4), jnp.float32)  # 2^31 numbers
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 4, 1), jnp.float32)
    with pytest.raises(NotImplementedError, match=r"2\^31"):
        jax.eval_shape(lambda x, k: kernels(4).forward((x,), k), x, kernel)


def test_the_pallas_kernels_work_under_vmap_and_on_several_devices():
    form = FORMS["kernels 4"]
    inputs, kernel, dy = arrays(2, (3, 4, 5), (2,), 3, 3, "float32")
    one_each = jax.tree.map(lambda a: a[:, None], (inputs, dy))  # a batch of one on each device

    def run(inputs, dy):
        return form.forward(inputs, kernel), form.kernel_gradient(inputs, dy, 3)

    each = [run(*jax.tree.map(lambda a, k=k: a[k], one_each)) for k in range(2)]
    expected = jax.tree.map(lambda *a: jnp.stack(a), *each)
    for mapped in (jax.vmap(run), jax.pmap(run, axis_name="devices")):
        for one, other in zip(mapped(*one_each), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def on_an_absent_h100():
    """Return a context in which programs can be lowered for a GPU that is not there."""
    try:
        from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

        device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
        return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))
    except (ImportError, TypeError):  # JAX before 0.11 does not need it
        return contextlib.nullcontext()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", CANDIDATES, ids=lambda form: form.name)
def test_the_passes_are_lowered_for_cuda_at_the_size_of_the_network(form, dtype):
    sides, channels, features = (80, 56, 56, 56), (6, 6, 6, 7), 6

    def abstract(*shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    inputs = tuple(abstract(*sides, c) for c in channels)
    kernel = abstract(3, 3, 3, sum(channels), features)
    with on_an_absent_h100():
        traced = jax.jit(lambda *a: all_passes(form, *a)).trace(
            inputs, kernel, abstract(*sides, features)
        )
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    triton = text.count("__gpu$xla.gpu.triton")
    # One kernel forward, one for all inputs, and one per input for the gradient of the kernel.
    assert triton == (2 + len(channels) if form.name.startswith("kernels") else 0)


def test_the_plain_form_in_bfloat16_is_what_it_is_compared_with():
    # A mistake in the reference itself would show here: a kernel of ones adds up 27 voxels.
    x = jnp.arange(125.0).reshape(1, 5, 5, 5, 1)
    y = PLAIN.forward((x,), jnp.ones((3, 3, 3, 1, 1)))
    block = np.arange(125).reshape(5, 5, 5)[1:4, 1:4, 1:4]
    assert float(y[0, 2, 2, 2, 0]) == math.fsum(block.ravel())
