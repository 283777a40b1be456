"""The script that collects what only a GPU can show, without a GPU and in tiny sizes."""

import json
import subprocess
import sys
import time
from argparse import Namespace

import pytest

from benchmarks.gpu import __main__ as main
from benchmarks.gpu import part, summary
from benchmarks.gpu.parts import forms
from benchmarks.gpu.parts.profile import longest_kernels
from benchmarks.train import TRACED_STEPS
from msseg_jax.network.convolution import choice, measuring
from msseg_jax.network.convolution.form import PASSES, LayerShape
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.training import gpu_forms
from tests.support.session import ROOT


def run_fake_part(monkeypatch, tmp_path, body, limit_s=60.0):
    """Run a part whose module has this body, and return what is kept of it."""
    program = tmp_path / "fake.py"
    program.write_text(f"import os, sys, time\n{body}")
    original = subprocess.Popen
    monkeypatch.setattr(
        main.subprocess, "Popen",
        lambda command, **more: original([sys.executable, str(program)], **more),
    )  # fmt: skip
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)
    return main.run_part("versions", Namespace(folder=folder, small=True), tmp_path, limit_s)


def test_the_shares_add_up_and_unused_time_passes_to_later_parts(monkeypatch, tmp_path):
    assert 450 <= part.BUDGET_S <= 480 - 10  # 8 minutes at most, with the end of the last part
    now, limits = [1000.0], []
    used_s = {"versions": 5.0, "agreement": 70.0}  # of 15 and 50, so 10 are left for the second

    def run_part(name, flags, scratch, limit_s):
        limits.append(limit_s)
        now[0] += min(limit_s, used_s.get(name, limit_s))
        return {"status": "done"}

    monkeypatch.setattr(main, "run_part", run_part)
    monkeypatch.setattr(main.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "argv", ["gpu.sh", str(tmp_path)])
    assert main.main() == 0
    assert limits[:3] == [15.0, 60.0, 80.0]
    assert now[0] == 1000 + part.BUDGET_S
    limits.clear()
    monkeypatch.setattr(sys, "argv", ["gpu.sh", str(tmp_path), "--only", "pair", "tests"])
    assert main.main() == 0
    assert limits == pytest.approx([part.BUDGET_S * 20 / 35, part.BUDGET_S * 15 / 35])


def test_the_timings_of_a_part_end_before_it_is_stopped(monkeypatch, tmp_path):
    given = []
    jobs = [Job(LayerShape(1, (2, 2, 2), (1,), 1, 3, "float32"), which) for which in PASSES]
    monkeypatch.setattr(gpu_forms, "jobs_of", lambda config: jobs)
    monkeypatch.setattr(
        measuring, "time_missing", lambda jobs, budget_s, start_s: given.append(budget_s + start_s)
    )
    monkeypatch.setattr(choice, "known", lambda: {
        str(jobs[0]): [Outcome("plain", 2e-3), Outcome("wide 4", 1e-3)],
        str(jobs[1]): [Outcome("wide 4", None, "its process ended")],
    })  # fmt: skip
    monkeypatch.setattr(part.Task, "on_gpu", lambda task: True)
    reports = {}
    monkeypatch.setattr(part.Task, "report", lambda task, **results: reports.update(results))
    forms.run(part.Task("float32", tmp_path, tmp_path, time.monotonic() + 50, small=True))
    assert given[0] == pytest.approx(50 - forms.END_S, abs=3)
    assert (reports["timed"], reports["plain_ms"], reports["chosen_ms"]) == (1, 2.0, 1.0)
    assert reports["table"][1]["wide 4"] == "its process ended"


def test_what_a_part_reported_before_it_failed_is_kept(monkeypatch, tmp_path):
    body = 'print("RESULT {\\"a\\": 1}"); print("no kernel", file=sys.stderr); sys.exit(3)'
    result = run_fake_part(monkeypatch, tmp_path, body)
    assert result["a"] == 1
    assert result["status"] == "failed with 3 (no kernel)"
    assert "no kernel" in (tmp_path / "results" / "log.txt").read_text()


def test_a_part_that_takes_too_long_is_stopped_with_its_children(monkeypatch, tmp_path):
    body = f"""
import subprocess
late = "import time; time.sleep(5); open({str(tmp_path)!r} + '/alive', 'w')"
child = subprocess.Popen([sys.executable, "-c", late])
print('RESULT {{"a": 1}}', flush=True)
time.sleep(60)
"""
    start = time.monotonic()
    result = run_fake_part(monkeypatch, tmp_path, body, limit_s=2.0)
    assert time.monotonic() - start < 30
    assert result["status"].startswith("stopped after 2 s")
    assert result["a"] == 1
    time.sleep(4)
    assert not (tmp_path / "alive").exists()


def test_only_files_that_can_be_copied_are_left(monkeypatch, tmp_path):
    monkeypatch.setattr(main, "MOST_BYTES", 100)
    for k in range(9):
        (tmp_path / f"{k}.txt").write_text("x" * (k + 1))
    (tmp_path / "large").write_text("x" * 101)
    main.remove_excess(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [f"{k}.txt" for k in range(8)]


def test_the_longest_kernels_are_those_of_the_streams():
    def event(name, pid, tid, ms):
        return {"ph": "X", "name": name, "pid": pid, "tid": tid, "dur": ms * 1e3}

    def label(kind, pid, name, tid=0):
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}

    events = [
        label("process_name", 1, "/device:GPU:0"), label("process_name", 2, "/host:CPU"),
        label("thread_name", 1, "Stream #13(Compute)", 1), label("thread_name", 1, "XLA Ops", 2),
        label("thread_name", 2, "Stream of the host", 1),
        *[event("conv", 1, 1, 2.0)] * 6, *[event("sum", 1, 1, 1.0)] * 3,
        event("conv", 1, 2, 50.0), event("python", 2, 1, 90.0),
    ]  # fmt: skip
    kernels, total = longest_kernels({"traceEvents": events}, on_gpu=True)
    assert kernels == [
        {"kernel": "conv", "ms": 12 / TRACED_STEPS, "calls": 6 / TRACED_STEPS},
        {"kernel": "sum", "ms": 3 / TRACED_STEPS, "calls": 3 / TRACED_STEPS},
    ]
    assert total == 15 / TRACED_STEPS


def test_the_ratio_is_that_to_the_fastest_pytorch_of_the_same_dtype():
    results = {
        "steps-float32": {"status": "done", "dtype": "float32", "device_step_ms": 30.0},
        "steps-bfloat16": {"status": "done", "dtype": "bfloat16", "device_step_ms": 20.0},
        "torch-float32": {"status": "done", "dtype": "float32", "channels last, ms": 100.0,
                          "channels first, compiled, ms": 60.0, "x, peak_gib": 1.0},
    }  # fmt: skip
    assert summary.torch_ratios(results) == {"steps-float32, device": 0.5}
    page = summary.as_markdown(results)
    assert "| steps-float32, device | 0.50 |" in page


@pytest.mark.slow
def test_every_part_runs_without_a_gpu(tmp_path):
    done = subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", tmp_path / "results", "--small", "--budget_s", "1200"],
        capture_output=True, text=True, env={**main.os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + (tmp_path / "results" / "log.txt").read_text()
    results = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert list(results) == list(part.PARTS)
    statuses = {name: result["status"] for name, result in results.items()}
    for name, status in statuses.items():
        assert status == "done" or (name.startswith("torch") and "not installed" in status), name
    assert results["agreement"]["shifted 8"]["probability"] < 1e-5
    assert results["agreement"]["shifted 8"]["loss_change"] > 0
    assert results["forms-float32"]["timed"] == 2
    assert len(results["profile"]["kernels"]) == 10
    assert results["pair"]["warm_s"] > 0
    assert len(list((tmp_path / "results").rglob("*"))) <= main.MOST_FILES


def test_without_a_gpu_and_without_small_the_parts_say_what_they_need(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", str(tmp_path), "--only", "profile", "versions"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "summary.json").read_text())
    assert results["profile"]["status"].startswith("skipped: JAX has no GPU. Use --small")
    assert results["versions"]["backend"] == "cpu"
