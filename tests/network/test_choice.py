"""Time fake forms with a fake clock, and check what is chosen, kept and read back."""

import json
import logging
import re
import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from msseg_jax.configuration.sections import NetworkSettings
from msseg_jax.network.convolution import choice, differentiable, measuring
from msseg_jax.network.convolution.candidates import CANDIDATES
from msseg_jax.network.convolution.comparison import DeviceLost, difference, temporary_bytes
from msseg_jax.network.convolution.form import PASSES, Form, LayerShape
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.network.convolution.kernels import kernels
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.convolution.shifted import shifted
from msseg_jax.network.convolution.timing import time_forms
from msseg_jax.network.convolution.worker import entry_of, job_of
from msseg_jax.network.layer_table import layer_table
from msseg_jax.network.layers import find_layers
from msseg_jax.network.model import SiameseMPUNet
from msseg_jax.system.machine import processors

LAYER = LayerShape(2, (3, 4, 5), (2, 1), 3, 3, "float32")
JOB = Job(LAYER, "forward")
RIGHT = jnp.arange(1.0, 7).reshape(2, 3)


class Clock:
    """A clock that only moves when a form runs."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeForms:
    """Forms by name: the seconds of a call, its result or an error and, if given, its memory."""

    def __init__(self, **behaviour):
        self.clock = Clock()
        self.behaviour = {"plain": (1.0, RIGHT), **behaviour}
        self.calls = dict.fromkeys(self.behaviour, 0)

    def compile(self, form, job):
        seconds, result, *temporary_bytes = self.behaviour[form.name]

        def run(*arguments):
            self.calls[form.name] += 1
            self.clock.now += seconds
            if isinstance(result, Exception):
                raise result
            return (result,)

        if temporary_bytes:
            needed = SimpleNamespace(temp_size_in_bytes=temporary_bytes[0])
            run.memory_analysis = lambda: needed
        return run

    def time(self, budget_s=1000.0, jobs=(JOB,), **more):
        others = [Form(name, *PLAIN[1:]) for name in self.behaviour if name != "plain"]
        return dict(
            time_forms(
                jobs, lambda job: others, budget_s,
                **{"clock": self.clock, "compile_form": self.compile, **more},
            )
        )  # fmt: skip


def test_the_fastest_form_that_agrees_is_chosen():
    wrong = RIGHT.at[1, 2].add(1.0)
    forms = FakeForms(
        slow=(2.0, RIGHT), fast=(0.25, RIGHT), wrong=(0.1, wrong),
        raising=(0.1, RuntimeError("no such\nkernel")), nan=(0.1, RIGHT.at[0, 0].set(jnp.nan)),
        other_shape=(0.1, RIGHT[:1]), other_dtype=(0.1, RIGHT.astype(jnp.bfloat16)),
    )  # fmt: skip
    outcomes = {o.form: o for o in forms.time()[JOB]}
    times = {name: o.seconds for name, o in outcomes.items()}
    assert times == {
        "plain": 1.0, "slow": 2.0, "fast": 0.25, "wrong": None, "raising": None, "nan": None,
        "other_shape": None, "other_dtype": None,
    }  # fmt: skip
    assert outcomes["raising"].reason == "RuntimeError: no such"
    assert "differs by 1.0e-01 of its norm" in outcomes["wrong"].reason  # 1 / sqrt(91)
    assert "float32(1, 3), not float32(2, 3)" in outcomes["other_shape"].reason
    assert choice.chosen(list(outcomes.values())) == "fast"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.94, "other"), (0.96, "plain"), (1.5, "plain")]
)
def test_another_form_must_be_clearly_faster_than_the_plain_one(seconds, expected):
    assert choice.chosen(FakeForms(other=(seconds, RIGHT)).time()[JOB]) == expected


def test_without_a_time_of_the_plain_form_the_plain_form_is_chosen():
    forms = FakeForms(plain=(1.0, RuntimeError("no algorithm")), fast=(0.1, RIGHT))
    outcomes = forms.time()[JOB]
    assert [o.form for o in outcomes] == ["plain"]
    assert forms.calls["fast"] == 0
    assert choice.chosen(outcomes) == "plain"
    assert choice.chosen([]) == "plain"


def test_rounding_within_the_tolerance_agrees():
    for dtype, part, text in (("float32", 1e-3, ""), ("float32", 3e-3, "differs"),
                              ("bfloat16", 3e-3, ""), ("bfloat16", 2e-2, "differs")):  # fmt: skip
        assert text in difference((RIGHT * (1 + part),), (RIGHT,), dtype)
        assert bool(text) == bool(difference((RIGHT * (1 + part),), (RIGHT,), dtype))


def test_one_wrong_number_among_many_is_found():
    right = jnp.ones((100, 1000))
    assert "at most" in difference((right.at[3, 4].set(0.9),), (right,), "float32")


def test_a_hopeless_form_is_not_timed_to_the_end():
    forms = FakeForms(fast=(0.5, RIGHT), hopeless=(1.5, RIGHT))
    forms.time()
    assert forms.calls == {"plain": 6, "fast": 6, "hopeless": 3}  # one to compare, then samples


def test_short_calls_are_timed_several_at_a_time():
    forms = FakeForms(short=(1e-4, RIGHT), shorter=(0.9e-3, RIGHT))
    assert choice.chosen(forms.time()[JOB]) == "short"
    assert forms.calls["short"] == 1 + 1 + 4 * 4
    assert forms.calls["shorter"] == 1 + 1 + 2, "it is hopeless compared with the other"
    assert FakeForms(medium=(0.9e-3, RIGHT)).time()[JOB][1].seconds == pytest.approx(0.9e-3)


def test_when_the_time_is_used_up_what_was_timed_counts():
    second = JOB._replace(which="kernel gradient")
    both = [Outcome("plain", 1.0), Outcome("other", 0.5)]  # 6 + 3 s for a job
    for budget_s, in_second in ((9.5, both[:1]), (15.5, both), (18, both)):
        found = FakeForms(other=(0.5, RIGHT)).time(budget_s, (JOB, second))
        assert found == {JOB: both, second: in_second}
    assert FakeForms(other=(0.5, RIGHT)).time(8, (JOB, second)) == {JOB: both}
    assert FakeForms(other=(0.5, RIGHT)).time(5, (JOB, second)) == {JOB: both[:1]}
    assert FakeForms(other=(0.5, RIGHT)).time(0) == {}


def test_a_form_that_is_compiled_for_too_long_is_dropped_and_the_others_are_timed():
    forms = FakeForms(slow=(0.1, RIGHT), fast=(0.5, RIGHT))
    fast_is_ready, end = threading.Event(), threading.Event()

    def compile_form(form, job):
        if form.name == "slow":
            assert fast_is_ready.wait(60)
            forms.clock.now += 31
            assert end.wait(60)
        return forms.compile(form, job)

    def announce(event):
        if (event.form, event.what) == ("fast", "compiled"):
            fast_is_ready.set()

    try:
        found = forms.time(compile_form=compile_form, announce=announce, threads=2)
    finally:
        end.set()
    assert found[JOB] == [
        Outcome("plain", 1.0),
        Outcome("slow", None, "TimeoutError: compiling it takes more than 30 s"),
        Outcome("fast", 0.5),
    ]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 9.00GiB"),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ],
)
def test_a_form_for_which_no_memory_was_left_has_no_outcome(error):
    found = FakeForms(large=(0.1, error), other=(0.5, RIGHT)).time()
    assert found[JOB] == [Outcome("plain", 1.0), Outcome("other", 0.5)]
    assert FakeForms(plain=(1.0, error), other=(0.5, RIGHT)).time() == {}


def test_a_kernel_that_needs_more_shared_memory_than_the_card_has_is_dropped_for_good():
    error = RuntimeError("RESOURCE_EXHAUSTED: Shared memory size limit exceeded: requested 300000")
    assert FakeForms(large=(0.1, error)).time()[JOB][1].reason.startswith("RuntimeError: RESOURCE")


def test_a_form_that_needs_much_more_memory_than_the_plain_one_is_not_run():
    forms = FakeForms(
        plain=(1.0, RIGHT, 2 * 2**30), large=(0.1, RIGHT, 5 * 2**30), fitting=(0.5, RIGHT, 2**32)
    )
    found = forms.time(card_bytes=25 * 2**30)[JOB]  # a tenth are 2.5 GiB
    assert found[1:] == [
        Outcome("large", None, "it needs 3.0 GiB more than the plain form"), Outcome("fitting", 0.5)
    ]  # fmt: skip
    assert forms.calls["large"] == 0
    assert forms.time(card_bytes=30 * 2**30)[JOB][1].seconds == pytest.approx(0.1)


def test_with_one_thread_no_form_is_compiled_while_another_runs():
    forms, events = FakeForms(one=(0.5, RIGHT), two=(0.25, RIGHT)), []

    def compile_form(form, job):
        time.sleep(0.02)
        run = forms.compile(form, job)
        return lambda *arguments: time.sleep(0.01) or run(*arguments)

    forms.time(compile_form=compile_form, announce=events.append, threads=1)
    assert len(events) == 12
    for first, second in zip(events[::2], events[1::2], strict=True):
        assert first.form == second.form
        assert (first.what, second.what) in (("compiling", "compiled"), ("running", "ran"))


def test_a_real_program_says_how_much_memory_it_needs():
    x = jnp.ones((256, 256))
    run = jax.jit(lambda x: jnp.sin(x @ x) @ x).lower(x).compile()
    assert temporary_bytes(run) >= x.nbytes
    assert temporary_bytes(lambda: x) == 0  # not every program tells


@pytest.mark.parametrize("during", ["compiling", "running"])
def test_a_form_that_makes_the_device_unusable_ends_the_process(monkeypatch, during):
    def lost(*_):
        raise RuntimeError("illegal address")

    forms = FakeForms(broken=(0.1, RuntimeError("illegal address")))

    def compile_form(form, job):
        if during == "compiling" and form.name == "broken":
            lost()
        return forms.compile(form, job)

    events = []
    original = jax.numpy.arange
    monkeypatch.setattr(jax.numpy, "arange", lambda *a: lost() if a == (3.0,) else original(*a))
    with pytest.raises(DeviceLost):
        forms.time(compile_form=compile_form, announce=events.append)
    steps_of_form = [event.what for event in events if event.form == "broken"]
    assert steps_of_form[-1] == during, "its end is not announced, so it is the suspect"


def test_real_forms_are_compiled_in_threads_and_agree():
    names = set()

    def announce(event):
        names.add(threading.current_thread().name)

    jobs = [Job(LAYER, which) for which in PASSES]
    # On a CPU, Pallas kernels only run with interpret=True. Here they fail, as on an old GPU.
    found = dict(
        time_forms(jobs, lambda _: [shifted(4), kernels(4)], 300, threads=2, announce=announce)
    )
    for job in jobs:
        plain, other, pallas = found[job]
        assert plain.seconds > 0, plain
        assert other.seconds > 0, other
        assert pallas.seconds is None
        assert "interpret" in pallas.reason
    assert len(names) > 1


# ---------------------------------------------------------------------------- file and process


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Pretend that this process has a GPU, with an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "why_not", lambda: "")
    monkeypatch.setattr(choice, "_known", None)
    return tmp_path / "msseg_jax"


def forget(monkeypatch):
    """Act like a new process."""
    monkeypatch.setattr(choice, "_known", None)


FASTER = [Outcome("plain", 2.0), Outcome("shifted 4", 1.0), Outcome("kernels 4", None, "no Triton")]


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


# ------------------------------------------------------------------------------------ measuring


def test_a_job_survives_the_way_to_the_worker():
    for which in PASSES:
        job = Job(LAYER, which)
        assert job_of(json.loads(json.dumps(entry_of(job)))) == job


@pytest.mark.usefixtures("gpu")
def test_a_process_of_its_own_times_what_is_missing_and_only_once(monkeypatch):
    small = Job(LayerShape(1, (2, 2, 2), (1,), 1, 1, "float32"), "forward")
    jobs = [small, JOB, JOB]
    assert measuring.missing(jobs) == [JOB, small]  # the largest first
    measuring.time_missing(jobs, 500)
    forget(monkeypatch)
    found = choice.known()
    assert set(found) == {str(JOB), str(small)}
    assert all(of_job[0].form == "plain" and of_job[0].seconds > 0 for of_job in found.values())
    assert {o.form for o in found[str(JOB)] if o.seconds is None} == {
        "kernels 2", "kernels 4", "kernels 8"
    }  # fmt: skip
    assert {o.form for o in found[str(small)]} == {"plain", "shifted 8", "padded"}
    measuring.time_missing(jobs, 500, command=["no-such-program"])  # nothing is missing


def fake_worker(tmp_path, body):
    """Return the command of a worker that runs `body`, with the task and a function `tell`."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys, time\n"
        "task = json.load(sys.stdin)\n"
        "def tell(**event): print(json.dumps(event), flush=True)\n"
        f"job = {str(JOB)!r}\n"
        f"forms = task['jobs'][0][1]\n{body}"
    )
    return [sys.executable, str(script)]


ENDED = "its process ended"


@pytest.mark.usefixtures("gpu")
def test_a_form_that_ends_the_process_is_never_tried_again(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    body = """
sys.stdout.buffer.write(b"a library says \\xff\\n")
sys.stdout.flush()
if "kernels 4" in forms:
    tell(event="running", job=job, form="plain")
    tell(event="ran", job=job, form="plain")
    tell(event="running", job=job, form="kernels 4")
    print("illegal instruction", file=sys.stderr, flush=True)
    os.abort()
tell(timed=job, outcomes=[["plain", 2.0, ""], ["shifted 4", 1.0, ""]])
tell(done=True)
"""
    command = fake_worker(tmp_path, body)
    monkeypatch.setattr(measuring, "MOST_STARTS", 1)
    measuring.time_missing([JOB], 60, command=command)
    assert "illegal instruction" in caplog.text
    forget(monkeypatch)  # the plain form has no time yet
    assert choice.known() == {str(JOB): [Outcome("kernels 4", None, ENDED)]}
    assert choice.form_for(*JOB) is PLAIN
    measuring.time_missing([JOB], 60, command=command)
    assert choice.known()[str(JOB)] == [
        Outcome("kernels 4", None, ENDED), Outcome("plain", 2.0), Outcome("shifted 4", 1.0)
    ]  # fmt: skip
    assert choice.form_for(*JOB).name == "shifted 4"


@pytest.mark.usefixtures("gpu")
def test_of_several_suspects_the_next_process_finds_the_one_to_blame(tmp_path):
    tasks = tmp_path / "tasks"
    body = f"""
with open({str(tasks)!r}, "a") as file:
    print(task["threads"], task["jobs"][0][0][1], *forms, sep=",", file=file)
started = len(open({str(tasks)!r}).readlines())
for form in ("kernels 8", "kernels 4")[:3 - started]:
    tell(event="compiling", job=job, form=form)
if started < 3:
    os.abort()
tell(done=True)
"""
    larger = JOB._replace(layer=LAYER._replace(sides=(8, 8, 8)))
    measuring.time_missing([JOB, larger], 60, command=fake_worker(tmp_path, body))
    assert choice.known() == {str(JOB): [Outcome("kernels 8", None, ENDED)]}
    names = [form.name for form in CANDIDATES]
    expected = [
        (processors(), [8, 8, 8], names),  # the largest job first
        (1, [3, 4, 5], names),  # the job with the suspects first, one form at a time
        (processors(), [8, 8, 8], names),
    ]
    assert tasks.read_text().splitlines() == [
        ",".join([str(threads), str(sides), *forms]) for threads, sides, forms in expected
    ]


CRASHING = """
import os
from msseg_jax.network.convolution import timing, worker

def compile_form(form, job):
    if form.name == "wide 4":
        os.abort()
    return timing.compile_pass(form, job)

timing.time_forms.__kwdefaults__["compile_form"] = compile_form
worker.main()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_a_compiler_that_crashes_costs_one_form_only():
    measuring.time_missing([JOB], 300, command=[sys.executable, "-c", CRASHING])
    outcomes = {o.form: o for o in choice.known()[str(JOB)]}
    assert [name for name, o in outcomes.items() if o.reason == ENDED] == ["wide 4"]
    assert set(outcomes) == {"plain", *(form.name for form in CANDIDATES)}
    assert all(outcomes[name].seconds for name in ("plain", "wide 8", "shifted 4", "padded"))


@pytest.mark.usefixtures("gpu")
def test_only_forms_that_were_not_tried_are_tried(tmp_path):
    tasks = tmp_path / "tasks"
    body = f'open({str(tasks)!r}, "w").write(json.dumps(task["jobs"])); tell(done=True)'
    choice.add({str(JOB): [Outcome("plain", 2.0), *(Outcome(f.name, 1.0) for f in CANDIDATES[1:])]})
    broken = JOB._replace(which="kernel gradient")  # also with the plain form
    choice.add({str(broken): [Outcome("plain", None, "no algorithm")]})
    assert measuring.missing([broken, JOB]) == [JOB]
    measuring.time_missing([broken, JOB], 60, command=fake_worker(tmp_path, body))
    assert json.loads(tasks.read_text()) == [[entry_of_json(JOB), [CANDIDATES[0].name]]]


def entry_of_json(job):
    """Return the entry of a job after its way through JSON, which has no tuples."""
    return json.loads(json.dumps(entry_of(job)))


@pytest.mark.usefixtures("gpu")
def test_a_process_with_another_card_times_nothing(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(choice, "card", lambda: "NVIDIA H100")
    measuring.time_missing([JOB], 60)
    assert choice.known() == {}
    assert "the forms are timed for NVIDIA H100, but this process has cpu" in caplog.text


@pytest.mark.usefixtures("gpu")
def test_a_process_that_always_dies_is_given_up(tmp_path):
    starts = tmp_path / "starts"
    body = f"""
open({str(starts)!r}, "a").write(".")
tell(event="compiling", job=job, form="wide 8")
os.abort()
"""
    measuring.time_missing([JOB], 60, command=fake_worker(tmp_path, body))
    assert starts.read_text() == "." * measuring.MOST_STARTS
    assert choice.form_for(*JOB) is PLAIN


@pytest.mark.usefixtures("gpu")
def test_a_form_that_never_ends_is_stopped(tmp_path, monkeypatch):
    body = 'tell(event="running", job=job, form="wide 8"); time.sleep(600)'
    measuring.time_missing([JOB], 3, start_s=0, command=fake_worker(tmp_path, body))
    forget(monkeypatch)
    assert choice.known() == {str(JOB): [Outcome("wide 8", None, ENDED)]}
    assert choice.form_for(*JOB) is PLAIN


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("command", [["no-such-program"], [sys.executable, "-c", "1"]])
def test_without_a_working_process_the_plain_form_is_used(command):
    measuring.time_missing([JOB], 30, command=command)
    assert choice.form_for(*JOB) is PLAIN
