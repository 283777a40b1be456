"""The choice of the convolution's form before a training, without a GPU."""

import os
import socket
import subprocess
import sys
from argparse import Namespace
from functools import partial

import jax
import numpy as np
import pytest

from msseg_jax.cli import train as cli_train
from msseg_jax.cli.ending import run_command
from msseg_jax.configuration.files import typed
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.convolution import choice, differentiable, measuring
from msseg_jax.network.convolution.candidates import CANDIDATES
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.convolution.shifted import shifted
from msseg_jax.network.convolution.wide import wide
from msseg_jax.training import loop
from msseg_jax.training.devices import AXIS
from msseg_jax.training.gpu_forms import choose_forms, explaining_lack_of_memory, jobs_of
from msseg_jax.training.step import create_state, train_step
from tests.support.runs import build_model, train_run
from tests.support.session import ROOT
from tests.support.steps import RATE, random_batch, run_steps

JOIN = """
import sys
from msseg_jax.training.joining import join_processes
join_processes("127.0.0.1:{port}", int(sys.argv[1]), 2)
from msseg_jax.training.processes import is_main, text_of_main
print(ascii(text_of_main("a text", "größer, from process 0" if is_main() else "short")))
"""


@pytest.mark.parametrize(("devices", "dtype"), [(1, "float32"), (4, "bfloat16")])
def test_the_timed_jobs_are_those_that_the_training_asks_for(
    small_config, monkeypatch, devices, dtype
):
    small_config.train.compute_dtype = dtype
    small_config.predict.batch_size = 3  # so 3 and 6 volumes, which a step does not have
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    asked = []
    original = choice.form_for
    monkeypatch.setattr(
        differentiable, "form_for", lambda *job: asked.append(Job(*job)) or original(*job)
    )
    state = create_state(build_model(small_config, AXIS, dtype), lambda step: RATE)
    batch = random_batch(patches=4 // devices)
    asked.clear()  # the initialisation asks, too
    step = jax.vmap(
        partial(train_step, seed=0), axis_name=AXIS, in_axes=(None, 0), out_axes=None
    )  # fmt: skip
    jax.eval_shape(step, state, jax.tree.map(lambda a: a[None], batch))
    by_step = set(asked)  # here, because looking for the layers asks, too
    jobs = jobs_of(typed(small_config))
    first = Job(jobs[0].layer, "input gradient")
    # The step also asks for the gradient of the images, but nothing uses it.
    assert first not in jobs
    assert by_step - {first} == {job for job in jobs if job.layer.batch not in (3, 6)}
    tiles = {job for job in jobs if job.layer.batch in (3, 6)}
    assert {job.which for job in tiles} == {"forward"}
    assert {job.layer.dtype for job in tiles} == {"float32"}


def test_without_a_gpu_nothing_is_timed(small_config, monkeypatch):
    monkeypatch.setattr(measuring, "time_missing", lambda *_: pytest.fail("it was timed"))
    choose_forms(typed(small_config), 10**6)
    assert choice.known() == {}


def test_on_a_gpu_all_passes_are_timed_once(small_config, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "why_not", lambda: "")
    monkeypatch.setattr(choice, "_known", None)
    timed = []

    def time_missing(jobs, budget_s):
        timed.append((jobs, budget_s))
        names = [form.name for form in CANDIDATES if form.name != "wide 4"]
        others = [Outcome(name, 1.5) for name in ("plain", *names)]
        choice.add({str(job): [*others, Outcome("wide 4", 1.0)] for job in jobs})

    monkeypatch.setattr(measuring, "time_missing", time_missing)
    config = typed(small_config)
    jobs = jobs_of(config)
    choose_forms(config, 1999)
    assert timed == [], "a short training does not wait"
    for _ in range(2):
        choose_forms(config, 3000)
        monkeypatch.setattr(choice, "_known", None)  # another process, which reads the file
    assert timed == [(jobs, 60.0)]
    assert capsys.readouterr().out == (
        f"timing {len(set(jobs))} convolutions on this GPU, for at most 120 s; the results are "
        "kept for the next training (MSSEG_JAX_GPU_FORMS=0 turns this off)\n"
    )
    assert choice.form_for(*jobs[0]).name == "wide 4"


def test_a_continued_training_waits_for_its_remaining_steps_only(
    small_config, monkeypatch, tmp_path
):
    asked = []
    monkeypatch.setattr(loop, "choose_forms", lambda config, steps: asked.append(steps))
    run = RunFolder(tmp_path / "run")
    for steps in (1, 3):
        small_config.train.max_steps = steps
        train_run(small_config, run)
    assert asked == [1, 2]


FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9126805504 bytes."


@pytest.mark.parametrize(("why_not", "named"), [("", True), ("not timed on cpu", False)])
def test_when_the_memory_of_the_device_runs_out_the_command_says_what_to_do(
    small_config, monkeypatch, tmp_path, capsys, why_not, named
):
    def run_out(config, workdir):
        raise jax.errors.JaxRuntimeError(f"{FULL}\nmore")

    monkeypatch.setattr(choice, "why_not", lambda: why_not)
    monkeypatch.setattr(cli_train, "run_experiment", run_out)
    flags = Namespace(
        workdir=tmp_path / "run", mode="train", coordinator=None, process_id=None,
        num_processes=None, overrides=[], configuration=typed(small_config),
    )  # fmt: skip
    assert run_command("msseg train", lambda: cli_train.run(flags)) == 1
    forms = (
        ", or set the environment variable MSSEG_JAX_GPU_FORMS=0: XLA's own convolutions are then "
        "used, which may be slower and need less memory"
    )
    assert capsys.readouterr().err == (
        f"msseg train: the memory of the device ran out ({FULL}). Use a smaller "
        f"config.train.batch_size (it is 4){forms if named else ''}.\n"
    )


def test_other_errors_of_the_device_are_not_explained(small_config):
    error = jax.errors.JaxRuntimeError("INTERNAL: illegal address")
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="illegal address"),
        explaining_lack_of_memory(typed(small_config)),
    ):
        raise error


def test_training_steps_agree_whatever_form_is_used(small_config, monkeypatch):
    found, used = [], []

    def noting(form):
        forward = form.forward
        return form._replace(forward=lambda *given: used.append(form.name) or forward(*given))

    for form in map(noting, (PLAIN, wide(4), shifted(8))):
        monkeypatch.setattr(differentiable, "_cpu_form", lambda _, form=form: form)
        _, history = run_steps(small_config, 1, 3)
        found.append([float(metrics["loss"]) for metrics in history])
    assert set(used) == {"plain", "wide 4", "shifted 8"}
    assert len(set(found[0])) == 3  # the network learns
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4)


def test_all_processes_get_the_text_of_the_main_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        script = JOIN.format(port=free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(k)], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for k in range(2)
    ]  # fmt: skip
    for process in started:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output.splitlines()[-1] == ascii("größer, from process 0")
