"""Errors in the log of a training, and the log of a continued run."""

import errno
import math
import os
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.report.snapshot import Snapshot
from msseg_jax.system.errors import InputError
from msseg_jax.training.log import TrainingLog
from msseg_jax.training.tensorboard import EventFile

RATE = 0.01


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path):
    with TrainingLog(tmp_path / "log.jsonl", 4, 9, lambda step: RATE) as log:
        log.begin(0)
        log.add(1, {"loss": jnp.float32(-0.5), "gradient_norm": jnp.float32("inf")})
        with pytest.raises(InputError, match="the gradient_norm of step 1 is inf"):
            log.write()


def test_a_loss_that_is_not_finite_ends_the_run_and_its_step_is_named(tmp_path):
    with TrainingLog(tmp_path / "log.jsonl", 4, 9, lambda step: RATE) as log:
        log.begin(0)
        for step, loss in ((1, -0.5), (2, float("nan")), (3, float("nan"))):
            log.add(step, {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(1)})
        with pytest.raises(InputError, match="the loss of step 2 is nan"):
            log.write()
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_steps_that_a_continued_run_repeats_are_logged_once(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 5, "validation": {}}\n{"st')
    with TrainingLog(path, 4, 9, lambda step: RATE) as log:
        log.begin(4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


def test_damaged_lines_are_removed_when_the_run_continues(tmp_path):
    path = tmp_path / "log.jsonl"
    damaged = [b"null", b"[1]", b'{"loss": 1}', b'{"step": null}', b"\0\0\xff\xfe", b"[" * 10**5]
    path.write_bytes(b'{"step": 2}\n' + b"\n".join(damaged) + b'\n{"step": 4}\n')
    with TrainingLog(path, 4, 9, lambda step: RATE) as log:
        log.begin(4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


@pytest.mark.parametrize("fails", ["begin", "write", "write_picture"])
def test_a_full_disk_is_reported_with_the_path_also_by_the_event_files(
    tmp_path, monkeypatch, fails
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(EventFile, fails, full)
    events = EventFile(tmp_path / "tensorboard")
    scores = {"dice": math.nan, "detected": 0, "missed": 0, "false": 1}
    message = rf"{tmp_path}/log.jsonl or the event files next to it cannot be written .*No space"
    snapshot = Snapshot("anna", np.zeros((2, 2, 3), np.uint8))
    with TrainingLog(tmp_path / "log.jsonl", 4, 9, lambda step: RATE, events) as log:
        work = partial(log.begin, 0)
        if fails != "begin":
            work()
            work = partial(log.write_validation, 3, scores, snapshot)
        with pytest.raises(InputError, match=message):
            work()
    if fails == "write_picture":
        assert (tmp_path / "log.jsonl").read_text() == (
            '{"step": 3, "validation": {"dice": null, "detected": 0, "missed": 0, "false": 1}}\n'
        )


def test_the_log_is_synchronised_with_the_disk_before_a_checkpoint(tmp_path, monkeypatch):
    synchronised = []
    monkeypatch.setattr(os, "fsync", lambda file: synchronised.append(os.fstat(file).st_size))
    with TrainingLog(tmp_path / "log.jsonl", 4, 9, lambda step: RATE) as log:
        log.begin(0)
        log.add(1, {"loss": jnp.float32(-0.5), "gradient_norm": jnp.float32(1)})
        log.write()
        log.sync()
    assert synchronised == [len((tmp_path / "log.jsonl").read_bytes())]


def test_a_folder_in_the_place_of_the_log_is_named(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    log = TrainingLog(tmp_path / "log.jsonl", 4, 9, lambda step: RATE)
    with pytest.raises(InputError, match=r"log.jsonl or the event files"):
        log.begin(0)
