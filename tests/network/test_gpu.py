"""The forms of the convolution on a real NVIDIA GPU: agreement, and the choice between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.configuration.files import typed
from msseg_jax.network import convolution
from msseg_jax.network.convolution import choice, measuring
from msseg_jax.network.convolution.candidates import CANDIDATES
from msseg_jax.network.convolution.comparison import difference
from msseg_jax.network.convolution.form import PASSES, LayerShape
from msseg_jax.network.convolution.job import Job
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.training.gpu_forms import choose_forms
from tests.support.convolutions import all_passes, arrays, expected_passes
from tests.support.steps import run_steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(choice.why_not()), reason=f"needs an NVIDIA GPU: {choice.why_not()}"),
]


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """Start without timed forms."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "_known", None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", [PLAIN, *CANDIDATES], ids=lambda form: form.name)
def test_every_form_agrees_with_exact_arithmetic(form, dtype):
    for shape in ((2, (13, 14, 15), (3, 2), 4), (1, (16, 16, 24), (6, 6, 7), 6)):
        given = arrays(*shape, 3, dtype)
        expected = [e.astype(dtype) for e in expected_passes(*given)]
        found = jax.jit(lambda *a: all_passes(form, *a))(*given)
        for one, other in zip(found, expected, strict=True):
            assert difference((one,), (other,), dtype) == ""


@pytest.mark.parametrize("form", CANDIDATES, ids=lambda form: form.name)
def test_results_are_bit_identical_every_time(form):
    given = arrays(2, (13, 14, 15), (6,), 6, 3, "float32")
    run = jax.jit(lambda *a: all_passes(form, *a))
    first = run(*given)
    for _ in range(3):
        for one, other in zip(first, run(*given), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("empty_cache")
def test_the_forms_are_timed_in_another_process_and_then_used():
    layer = LayerShape(8, (24, 24, 24), (6, 7), 6, 3, "float32")
    jobs = [Job(layer, which) for which in PASSES]
    measuring.time_missing(jobs, 120)
    known = choice.known()
    assert set(known) == set(map(str, jobs))
    for job in jobs:
        plain, *others = known[str(job)]
        assert plain.seconds > 0
        assert any(o.seconds is not None for o in others), others
    inputs, kernel, dy = arrays(8, layer.sides, layer.channels, layer.features, 3, "float32")
    y, pull = jax.vjp(lambda *a: convolution.conv3d(a[:2], a[2]), *inputs, kernel)
    found = (y, *pull(dy))
    assert difference(found, tuple(expected_passes(inputs, kernel, dy)), "float32") == ""


@pytest.mark.usefixtures("empty_cache")
def test_training_steps_agree_with_the_cpu(small_config, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    choose_forms(typed(small_config), 3000)
    losses = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            _, history = run_steps(small_config, [device], 5)
        losses.append([float(metrics["loss"]) for metrics in history])
    assert jnp.ptp(jnp.asarray(losses[0])) > 0  # the network learns
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-2)
