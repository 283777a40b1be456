"""Whatever stops a training, the same command goes on, to the same bits."""

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
from tests.support.launching import Launch
from tests.support.patients import make_patients
from tests.support.runs import logged, newest_step, stored

STEPS = 200
TRAINING = (
    f"--config.train.max_steps={STEPS}", "--config.train.epochs=1000",
    "--config.train.validate_every_steps=30", "--config.train.checkpoint_every_steps=4",
    "--config.train.log_every_steps=1",
)  # fmt: skip
KILLS = 20
LIFE_STEPS = 10  # at most, of one that is killed: all of them do not reach the end


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    with Launch(make_patients(tmp_path_factory.mktemp("data") / "patients")) as launch:
        yield launch


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    """A run that nothing stops."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    status, said = launch.run(workdir, *TRAINING)
    assert status == 0, said
    return workdir


def assert_goes_on_to_the_same_end(launch, whole, workdir):
    status, said = launch.run(workdir, *TRAINING)
    assert status == 0, said
    jax.tree.map(np.testing.assert_array_equal, stored(whole), stored(workdir))
    assert logged(whole, "validation") == logged(workdir, "validation")
    ours, theirs = logged(whole, "gradient_norm"), logged(workdir, "gradient_norm")
    assert set(ours) <= set(theirs)  # a stop writes a line of its own
    assert ours == {step: theirs[step] for step in ours}


def follow(process, steps):
    """Read what a training says until it has logged so many steps."""
    said = []
    for line in process.stdout:
        said.append(line)
        steps -= line.startswith("step ")
        if steps <= 0:
            return
    pytest.fail("".join(said))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stores_the_state_and_ends_with_its_own_status(launch, whole, tmp_path, number):
    process = launch.start(tmp_path / "run", *TRAINING)
    follow(process, 3)
    process.send_signal(number)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == EXIT_STATUS == 75, said
    step, _ = stored(tmp_path / "run")
    assert 0 < step < STEPS
    assert f"asked to stop: stored step {step} of {STEPS}" in said
    assert_goes_on_to_the_same_end(launch, whole, tmp_path / "run")


@pytest.mark.slow
def test_a_training_killed_at_twenty_random_moments_ends_bit_identical(launch, whole, tmp_path):
    generator = np.random.default_rng(0)
    newest = 0
    for kill in range(KILLS):
        process = launch.start(tmp_path / "run", *TRAINING)
        if kill % 5 == 4:  # anywhere in its start
            time.sleep(generator.uniform(0, 5))
        else:
            follow(process, generator.integers(1, LIFE_STEPS))
            time.sleep(generator.uniform(0, 0.1))
        assert process.poll() is None, process.communicate()[0]  # else nothing would be killed
        process.kill()
        process.communicate()
        before, newest = newest, newest_step(tmp_path / "run")
        assert newest >= before  # what was complete is never lost
    assert 0 < newest < STEPS
    assert_goes_on_to_the_same_end(launch, whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux limits the files of a process that runs"
)
def test_a_full_disk_ends_the_training_with_a_message_and_loses_nothing(launch, whole, tmp_path):
    process = launch.start(tmp_path / "run", *TRAINING)
    follow(process, 1)
    # From now on every file ends at 8 kB, as if the disk were full: the log has room for a while.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, 8192))
    said, _ = process.communicate(timeout=300)
    assert process.returncode not in (0, EXIT_STATUS)
    wanted = rf"{tmp_path / 'run'}.* (could not be stored|cannot be written) \(.*File too large"
    assert re.search(wanted, said), said
    assert_goes_on_to_the_same_end(launch, whole, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_the_training_a_signal_ends_with_the_same_status(launch, tmp_path, number):
    process = launch.start(tmp_path / "run", "--config.data.phantom_patients=99")
    assert "making 99 phantom patients" in process.stdout.readline()
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_STATUS, said
    assert INTERRUPTED in said
    assert "Traceback" not in said


def test_sigterm_is_ctrl_c_but_while_a_training_notes_it():
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
    """A process that runs some lines while an `Interruption` is entered."""
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


# A library, as a compilation or a step is one: until it returns Python calls no handler.
LIBRARY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_answered_and_the_second_ends_at_once_in_a_library_too(second):
    with interruptible(LIBRARY) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == "\n"  # a bar may be there
        assert "asked to stop: storing after this step" in process.stderr.readline()
        time.sleep(2 * ONE_S)
        process.send_signal(second)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 128 + second
        assert said == f"\n{ENDED}\n"


def test_a_signal_that_comes_twice_at_once_is_one():
    twice = "for _ in range(2): signal.raise_signal(signal.SIGTERM)"
    with interruptible(twice) as process:
        out, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert out == "asked: True\n"
        assert said.count("asked to stop") == 1
