"""Forms are timed in a process of its own, which may crash, hang or die."""

import json
import logging
import sys

import pytest

from msseg_jax.network.convolution import choice, measuring
from msseg_jax.network.convolution.candidates import CANDIDATES
from msseg_jax.network.convolution.form import PASSES, LayerShape
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.convolution.worker import entry_of, job_of
from msseg_jax.system.machine import processors
from tests.support.gpu_forms import JOB, LAYER, forget


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
