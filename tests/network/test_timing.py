"""Time fake forms with a fake clock, and check which are chosen."""

import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from msseg_jax.network.convolution import choice
from msseg_jax.network.convolution.comparison import DeviceLost, difference, temporary_bytes
from msseg_jax.network.convolution.form import PASSES, Form
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.network.convolution.kernels import kernels
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.convolution.shifted import shifted
from msseg_jax.network.convolution.timing import time_forms
from tests.support.gpu_forms import JOB, LAYER

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
