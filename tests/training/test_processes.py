"""Several processes that train together, on simulated devices."""

import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest

from msseg_jax.models.model_file import read_model_file
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED
from tests.support.launching import Launch, rest_of_output
from tests.support.runs import logged, stored
from tests.support.session import DATA

LONG = ("--config.train.epochs=1000", "--config.train.max_steps=100000")


@pytest.fixture
def launch(patients_root):
    with Launch(patients_root, devices=2) as launch:
        yield launch


def start_two(launch, workdir, *flags, own=((), ())):
    """Start two processes with the same flags; `own` are additional flags of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        launch.start(
            workdir, *flags, *own[k], f"--coordinator=127.0.0.1:{port}", f"--process_id={k}",
            "--num_processes=2",
        )
        for k in range(2)
    ]  # fmt: skip


def outputs(processes) -> list[str]:
    return [process.communicate(timeout=300)[0] for process in processes]


def wait_for_step(processes, workdir, step):
    """Wait until the log of a run has reached a step."""
    log = workdir / "log.jsonl"
    while not (log.is_file() and max(logged(workdir, "loss"), default=0) >= step):
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)


@pytest.mark.slow
def test_one_device_four_devices_and_two_processes_of_two_give_the_same_result(
    launch, patients_root, tmp_path
):
    steps = ("--config.train.max_steps=20", "--config.train.epochs=10")
    for devices in (1, 4):
        with Launch(patients_root, devices) as single:
            status, output = single.run(tmp_path / str(devices), *steps)
        assert status == 0, output
    processes = start_two(launch, tmp_path / "two", *steps)
    main, other = outputs(processes)
    assert [p.returncode for p in processes] == [0, 0], main + other
    assert "step 20/20" in main
    assert "step 20/20" not in other  # only process 0 logs
    assert "read_only" not in other  # no warning of orbax about options that it ignores
    assert "2 processes train together on 4 devices (cpu): 2 in each" in main
    _, one = stored(tmp_path / "1")
    for name in ("4", "two"):
        step, several = stored(tmp_path / name)
        assert step == 20
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, several
        )
        for field in ("loss", "gradient_norm"):
            ours, theirs = logged(tmp_path / "1", field), logged(tmp_path / name, field)
            assert list(ours) == list(theirs)
            np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-3)
        ours, theirs = logged(tmp_path / "1", "validation"), logged(tmp_path / name, "validation")
        assert list(ours) == list(theirs) == [3, 6, 9, 12, 15, 18, 20]
    files = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("1", "two")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_and_the_run_can_be_resumed(launch, tmp_path):
    processes = start_two(launch, tmp_path / "run", *LONG)
    wait_for_step(processes, tmp_path / "run", 6)
    processes[1].kill()
    died = time.monotonic()
    processes[1].communicate()
    try:
        output, _ = processes[0].communicate(timeout=60)
    except subprocess.TimeoutExpired:
        processes[0].kill()
        pytest.fail("the other process was still running after a minute")
    assert time.monotonic() - died < 60
    assert processes[0].returncode != 0
    # Either the broken connection or the missing heartbeat is noticed first.
    assert "another process died" in output or "another task died" in output
    assert "Traceback" not in output
    done, _ = stored(tmp_path / "run")
    more = done + 5
    longer = ("--config.train.epochs=1000", f"--config.train.max_steps={more}")
    main, _ = outputs(start_two(launch, tmp_path / "run", *longer))
    assert f"continuing after step {done}" in main
    assert stored(tmp_path / "run")[0] == more


def test_a_signal_to_one_process_stops_both_after_the_same_step(launch, tmp_path):
    processes = start_two(launch, tmp_path / "run", *LONG)
    wait_for_step(processes, tmp_path / "run", 4)
    processes[1].send_signal(signal.SIGTERM)
    texts = outputs(processes)
    assert [p.returncode for p in processes] == [EXIT_STATUS] * 2, texts
    step, _ = stored(tmp_path / "run")
    assert all(f"asked to stop: stored step {step} of" in text for text in texts)


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_before_the_training_ends_its_process_at_once_and_then_the_other(
    launch, tmp_path, first
):
    """Send the signal while process 0 makes phantoms, and the other process waits for them."""
    processes = start_two(launch, tmp_path / "run", *LONG, "--config.data.phantom_patients=999")
    while "making 999 phantom patients" not in (line := processes[0].stdout.readline()):
        assert line, "process 0 has ended"
    processes[first].send_signal(signal.SIGTERM)
    output, _ = rest_of_output(processes[first], timeout_s=15)
    assert processes[first].returncode == EXIT_STATUS, output
    assert f"ends: {INTERRUPTED}" in output
    processes[1 - first].communicate(timeout=60)
    assert processes[1 - first].returncode != 0


@pytest.mark.slow
def test_two_processes_start_from_one_trained_network(launch, tmp_path):
    """Train one step, so small that the network does not change. Each process reads the file."""
    path = DATA / "model_v1.safetensors"
    flags = (
        f"--config.init={path}", "--config.init_network=1", "--config.data.percentiles=(1,50,99)",
        "--config.train.learning_rate=1e-30", f"--config.model.norm_momentum={1 - 1e-12}",
        "--config.train.max_steps=1",
    )  # fmt: skip
    processes = start_two(launch, tmp_path / "run", *flags)
    main, other = outputs(processes)
    assert [p.returncode for p in processes] == [0, 0], main + other
    assert "starting with the weights of made up 1.0" in main
    assert "starting with the weights of" not in other
    network = read_model_file(path).networks[1]
    jax.tree.map(
        np.testing.assert_array_equal, stored(tmp_path / "run")[1]["model"], network.variables
    )
    other_kind = start_two(launch, tmp_path / "wide", *flags, "--config.model.widths=(4,2)")
    texts = outputs(other_kind)
    assert all(p.returncode not in (0, None) for p in other_kind)
    assert any("config.model.widths is (4, 2); expected (3, 2)" in text for text in texts)
    assert not (tmp_path / "wide").exists()


@pytest.mark.slow
def test_processes_that_train_together_share_one_lock(launch, tmp_path):
    processes = start_two(launch, tmp_path / "run", *LONG)
    wait_for_step(processes, tmp_path / "run", 2)
    others = start_two(launch, tmp_path / "run", *LONG)
    texts = outputs(others)
    assert all(p.returncode not in (0, None) for p in others)
    expected = f"--workdir={tmp_path / 'run'} is in use by process {processes[0].pid} on "
    assert sum(expected in text for text in texts) == 1, texts
    assert not any("Traceback" in text for text in texts)
    processes[0].send_signal(signal.SIGTERM)
    texts = outputs(processes)
    assert [p.returncode for p in processes] == [EXIT_STATUS] * 2, texts
    assert not (tmp_path / "run" / ".lock").exists()


def test_processes_with_different_configurations_are_refused(launch, tmp_path):
    seeds = (("--config.seed=0",), ("--config.seed=1",))
    processes = start_two(launch, tmp_path / "run", *LONG, own=seeds)
    texts = outputs(processes)
    assert all(p.returncode not in (0, None) for p in processes)
    expected = (
        "the command (mode, work folder, configuration) of process 1 differs from that of process 0"
    )
    assert any(expected in text for text in texts)
    assert not (tmp_path / "run").exists()
