"""Whatever stops a training, the same command goes on, to the same bits."""

import resource
import signal
import time

import jax
import numpy as np
import pytest

from msseg_jax.interruption import EXIT_STATUS, Interruption
from tests.conftest import Launch, logged, make_patient, stored

STEPS = 160
TRAINING = (
    f"--config.train.max_steps={STEPS}", "--config.train.epochs=1000",
    "--config.train.validate_every_steps=50", "--config.train.checkpoint_every_steps=4",
)  # fmt: skip
KILLS = 20
LIFE_S = 0.8  # at most, after the first step of each life: some 10 steps and 2 checkpoints


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "patients"
    for k in range(4):
        make_patient(root, f"patient_{k}", lesion=k != 2, seed=k)
    return root


@pytest.fixture(scope="module")
def launch(root):
    return Launch(root)


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


def wait_for_first_step(process):
    for line in process.stdout:
        if line.startswith("first step"):
            return
    pytest.fail("it ended before its first step")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stores_the_state_and_ends_with_its_own_status(launch, whole, tmp_path, number):
    process = launch.start(tmp_path / "run", *TRAINING)
    wait_for_first_step(process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
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
            wait_for_first_step(process)
            time.sleep(generator.uniform(0, LIFE_S))
        assert process.poll() is None  # otherwise nothing was killed
        process.kill()
        process.communicate()
        before, newest = newest, stored(tmp_path / "run")[0]
        assert newest >= before  # what was complete is never lost
    assert 0 < newest < STEPS
    assert_goes_on_to_the_same_end(launch, whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit is set as Linux does it")
def test_a_full_disk_ends_the_training_with_a_message_and_loses_nothing(launch, whole, tmp_path):
    process = launch.start(tmp_path / "run", *TRAINING)
    wait_for_first_step(process)
    # From now on every file ends at 1 kB, as if the disk were full.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1024, 1024))
    said, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, EXIT_STATUS)
    assert f"{tmp_path / 'run'}/checkpoints/last: step 4 could not be stored" in said
    assert "File too large" in said
    assert_goes_on_to_the_same_end(launch, whole, tmp_path / "run")


def test_a_second_signal_has_its_usual_effect():
    with Interruption() as interruption:
        assert not interruption.asked
        signal.raise_signal(signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
