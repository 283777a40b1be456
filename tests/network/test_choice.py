"""What was timed is kept in a file, read back, and decides which form a program contains."""

import json
import re

import jax
import pytest

from msseg_jax.configuration.sections import NetworkSettings
from msseg_jax.network.convolution import choice, differentiable
from msseg_jax.network.convolution.form import PASSES
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.layer_table import layer_table
from msseg_jax.network.layers import find_layers
from msseg_jax.network.model import SiameseMPUNet
from tests.support.gpu_forms import FASTER, JOB, LAYER, forget


@pytest.mark.usefixtures("gpu")
def test_a_choice_is_kept_in_the_cache_folder_and_used_by_other_processes(monkeypatch):
    assert choice.form_for(*JOB) is PLAIN
    choice.add({str(JOB): FASTER})
    for _ in range(2):
        assert choice.form_for(*JOB).name == "shifted 4"
        assert choice.known()[str(JOB)] == FASTER
        assert choice.form_for(LAYER, "kernel gradient") is PLAIN
        forget(monkeypatch)
    choice.adopt({})  # what process 0 says counts, not the file
    assert choice.form_for(*JOB) is PLAIN


@pytest.mark.usefixtures("gpu")
def test_results_of_two_processes_are_merged(monkeypatch):
    choice.add({"a job": FASTER})
    monkeypatch.setattr(choice, "_known", {})  # a process that read the file before
    choice.add({"another job": FASTER})
    forget(monkeypatch)
    assert set(choice.known()) == {"a job", "another job"}


@pytest.mark.usefixtures("gpu")
def test_outcomes_of_several_times_are_merged():
    choice.add({"a job": [Outcome("plain", 2.0), Outcome("wide 4", None, "its process ended")]})
    choice.add({"a job": [Outcome("plain", 3.0), Outcome("shifted 4", 1.9)]})
    assert list(choice.known()["a job"]) == [
        Outcome("plain", 2.0), Outcome("wide 4", None, "its process ended"),
        Outcome("shifted 4", 1.9),
    ]  # fmt: skip
    choice.add({"a job": [Outcome("shifted 4", None, "no kernel")]})
    assert choice.known()["a job"][-1] == Outcome("shifted 4", None, "no kernel")


def changed(**fields):
    """Return the content of a file with one outcome that has other fields."""
    content = json.loads(choice.as_text({str(JOB): FASTER}))
    content["timed"][str(JOB)][1].update(fields)
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "1", '{"format": 1}', "[" * 100_000, "\x00",
        pytest.param(lambda: changed(form="no such form"), id="unknown form"),
        pytest.param(lambda: changed(form=["plain"]), id="form is a list"),
        pytest.param(lambda: changed(seconds=-1.0), id="negative time"),
        pytest.param(lambda: changed(seconds=float("nan")), id="NaN"),
        pytest.param(lambda: changed(seconds="1"), id="time is a text"),
        pytest.param(lambda: changed(seconds=True), id="time is a boolean"),
        pytest.param(lambda: changed(reason=None), id="no reason"),
        pytest.param(lambda: changed(extra=1), id="another field"),
        pytest.param(lambda: changed().replace('"format": 1', '"format": 2'), id="format"),
        pytest.param(lambda: changed().replace(choice.card(), "another card"), id="card"),
        pytest.param(lambda: changed().replace('"timed": {', '"timed": [{') + "]", id="a list"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_ignored_and_replaced(gpu, monkeypatch, text):
    choice.add({str(JOB): FASTER})
    (file,) = gpu.iterdir()
    file.write_text(text if isinstance(text, str) else text())
    forget(monkeypatch)
    assert choice.form_for(*JOB) is PLAIN
    choice.add({str(JOB): FASTER})
    forget(monkeypatch)
    assert choice.form_for(*JOB).name == "shifted 4"
    assert list(gpu.iterdir()) == [file]


def test_the_switch_turns_it_off(monkeypatch):
    monkeypatch.setattr(choice, "_known", {str(JOB): FASTER})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(choice, "_platform_version", lambda: "CUDA 13000")
    assert choice.form_for(*JOB).name == "shifted 4"
    monkeypatch.setenv(choice.SWITCH, "0")
    assert choice.form_for(*JOB) is PLAIN
    assert choice.why_not() == "turned off by MSSEG_JAX_GPU_FORMS=0"


def test_on_a_cpu_nothing_is_read(monkeypatch):
    monkeypatch.setattr(choice, "read", lambda _: pytest.fail("the file was read"))
    monkeypatch.setattr(choice, "_known", None)
    assert choice.form_for(*JOB) is PLAIN


@pytest.mark.usefixtures("gpu")
def test_a_program_for_a_gpu_contains_the_chosen_form(monkeypatch):
    def lowered(platform):
        def both(x, kernel):
            y, pull = jax.vjp(lambda *a: differentiable.conv3d(a[:1], a[1]), x, kernel)
            return y, pull(y)

        shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((2, 3, 4, 5, 3), (3, 3, 3, 3, 3))]
        traced = jax.jit(both).trace(*shapes)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")

    layer = LAYER._replace(channels=(3,))
    assert lowered("cuda") == (3, 0)
    on_cpu = lowered("cpu")
    # The pass of each is replaced by a sum of 9 matrix products.
    for k, which in enumerate(PASSES, start=1):
        choice.add({str(Job(layer, which)): FASTER})
        assert lowered("cuda") == (3 - k, 9 * k)
    assert lowered("cpu") == on_cpu


@pytest.mark.usefixtures("gpu")
def test_describe_shows_the_form_of_each_pass(monkeypatch):
    settings = NetworkSettings(widths=(3, 2), node_convolutions=1, refinement_convolutions=1)
    first = find_layers(SiameseMPUNet(settings, compute_dtype="bfloat16"), 5, (8, 8, 8))[0]
    choice.add({str(Job(first.shape, "forward")): FASTER})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    lines = layer_table(settings, 8, 5, "bfloat16").splitlines()
    assert re.split("  +", lines[0].strip())[4:7] == list(PASSES)
    # No gradient of the images is needed.
    assert re.split("  +", lines[1].strip())[4:7] == ["shifted 4", "-", "not timed yet"]
    assert lines[-3].endswith("for 5 pairs in bfloat16: timed before the first training")
    monkeypatch.setattr(choice, "why_not", lambda: "turned off by MSSEG_JAX_GPU_FORMS=0")
    lines = layer_table(settings, 8, 5, "bfloat16").splitlines()
    assert re.split("  +", lines[1].strip())[4:7] == ["plain", "-", "plain"]
    assert lines[-3].endswith("in bfloat16: turned off by MSSEG_JAX_GPU_FORMS=0")
