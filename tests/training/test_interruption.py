"""The same command resumes a stopped training, and the results are bit-identical."""

import contextlib
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from msseg_jax.system.interruption import (
    ENDED,
    EXIT_STATUS,
    INTERRUPTED,
    ONE_S,
    Interruption,
    sigterm_as_ctrl_c,
)
from tests.support.launching import Launch, rest_of_output
from tests.support.patients import make_patients
from tests.support.runs import logged, newest_step, stored

STEPS = 200
TRAINING = (
    f"--config.train.max_steps={STEPS}", "--config.train.epochs=1000",
    "--config.train.validate_every_steps=30", "--config.train.checkpoint_every_steps=4",
    "--config.train.log_every_steps=1",
)  # fmt: skip
KILLS = 20
LIFE_STEPS = 10  # most steps before a kill; all kills together do not reach the last step


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    with Launch(make_patients(tmp_path_factory.mktemp("data") / "patients")) as launch:
        yield launch


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    """Return the folder of a run that is not interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    status, output = launch.run(workdir, *TRAINING)
    assert status == 0, output
    return workdir


def assert_resumes_to_the_same_result(launch, whole, workdir):
    status, output = launch.run(workdir, *TRAINING)
    assert status == 0, output
    jax.tree.map(np.testing.assert_array_equal, stored(whole), stored(workdir))
    assert logged(whole, "validation") == logged(workdir, "validation")
    ours, theirs = logged(whole, "gradient_norm"), logged(workdir, "gradient_norm")
    assert set(ours) <= set(theirs)  # a stop writes an additional line
    assert ours == {step: theirs[step] for step in ours}


def follow(process, steps):
    """Read the output of a training until it has logged this many lines for steps."""
    output = []
    for line in process.stdout:
        output.append(line)
        steps -= line.startswith("step ")
        if steps <= 0:
            return
    pytest.fail("".join(output))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stores_the_state_and_ends_with_status_75(launch, whole, tmp_path, number):
    process = launch.start(tmp_path / "run", *TRAINING)
    follow(process, 3)
    process.send_signal(number)
    output, _ = rest_of_output(process, timeout_s=300)
    assert process.returncode == EXIT_STATUS == 75, output
    step, _ = stored(tmp_path / "run")
    assert 0 < step < STEPS
    assert f"asked to stop: stored step {step} of {STEPS}" in output
    assert_resumes_to_the_same_result(launch, whole, tmp_path / "run")


@pytest.mark.slow
def test_a_training_killed_at_twenty_random_moments_ends_bit_identical(launch, whole, tmp_path):
    generator = np.random.default_rng(0)
    newest = 0
    for kill in range(KILLS):
        process = launch.start(tmp_path / "run", *TRAINING)
        if kill % 5 == 4:  # at any time during its start-up
            time.sleep(generator.uniform(0, 5))
        else:
            follow(process, generator.integers(1, LIFE_STEPS))
            time.sleep(generator.uniform(0, 0.1))
        assert process.poll() is None, process.communicate()[0]  # it must still be running
        process.kill()
        process.communicate()
        before, newest = newest, newest_step(tmp_path / "run")
        assert newest >= before  # complete checkpoints are never lost
    assert 0 < newest < STEPS
    assert_resumes_to_the_same_result(launch, whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(resource, "prlimit"),
    reason="only Linux can limit the file size of a running process",
)
def test_a_full_disk_ends_the_training_with_a_message_and_loses_nothing(launch, whole, tmp_path):
    process = launch.start(tmp_path / "run", *TRAINING)
    follow(process, 1)
    # From now on no file can exceed 8 kB, as if the disk were full. The log reaches that later.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, 8192))
    output, _ = rest_of_output(process, timeout_s=300)
    assert process.returncode not in (0, EXIT_STATUS)
    expected = rf"{tmp_path / 'run'}.* (could not be stored|cannot be written) \(.*File too large"
    assert re.search(expected, output), output
    assert "Traceback" not in output
    assert "ERROR" not in output
    assert_resumes_to_the_same_result(launch, whole, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_the_training_a_signal_ends_with_the_same_status(launch, tmp_path, number):
    process = launch.start(tmp_path / "run", "--config.data.phantom_patients=99")
    assert "is not used" in process.stdout.readline()  # config.data.root
    assert "making 99 phantom patients" in process.stdout.readline()
    process.send_signal(number)
    output, _ = rest_of_output(process, timeout_s=60)
    assert process.returncode == EXIT_STATUS, output
    assert INTERRUPTED in output
    assert "Traceback" not in output


def test_a_second_run_in_the_work_folder_is_refused_and_changes_nothing(launch, tmp_path):
    """Let the first run make phantoms, which takes long enough."""
    many = "--config.data.phantom_patients=99"
    first = launch.start(tmp_path / "run", many)
    assert "is not used" in first.stdout.readline()
    assert "making 99 phantom patients" in first.stdout.readline()
    folds = ("--config.data.validation_patients=0", "--config.data.folds=2")
    for flags in ((), ("--mode=cross_validate", *folds)):
        start_s = time.monotonic()
        status, output = launch.run(tmp_path / "run", many, *flags)
        assert status == 1
        expected = rf"--workdir={tmp_path / 'run'} is in use by process {first.pid} on \S+ \("
        assert re.search(expected, output), output
        assert time.monotonic() - start_s < 30
    assert first.poll() is None
    assert not list((tmp_path / "run").glob("fold_*"))
    first.kill()
    first.wait()
    status, output = launch.run(tmp_path / "run", "--config.train.max_steps=1")
    assert status == 0, output


def test_sigterm_acts_like_ctrl_c_except_while_a_training_catches_it():
    with sigterm_as_ctrl_c():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with Interruption() as interruption:
            assert not interruption.asked
            signal.raise_signal(signal.SIGTERM)
            assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


@contextlib.contextmanager
def interruptible(body):
    """Start a process that runs `body`, some code, inside an `Interruption`."""
    script = (
        "import hashlib, signal, time\n"
        "from msseg_jax.system.interruption import Interruption\n"
        "with Interruption() as interruption:\n"
        f"    print('entered', flush=True)\n    {body}\n"
        "print('asked:', interruption.asked)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "entered\n"
            yield process
        finally:
            process.kill()


# A long library call, like a compilation or a step. Python calls no handler until it returns.
LIBRARY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_process_even_during_a_library_call(second):
    with interruptible(LIBRARY) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == "\n"  # ends the line of a progress bar
        assert "Asked to stop: storing the state after this step" in process.stderr.readline()
        time.sleep(2 * ONE_S)
        process.send_signal(second)
        _, errors = rest_of_output(process, timeout_s=20)
        assert process.returncode == 128 + second
        assert errors == f"\n{ENDED}\n"


def test_two_signals_at_nearly_the_same_time_count_as_one():
    twice = "for _ in range(2): signal.raise_signal(signal.SIGTERM)"
    with interruptible(twice) as process:
        output, errors = rest_of_output(process, timeout_s=20)
        assert process.returncode == 0, errors
        assert output == "asked: True\n"
        assert errors.count("Asked to stop") == 1
