"""Errors in the log of a training, and the log of a continued run."""

import jax.numpy as jnp
import pytest

from msseg_jax.system.errors import InputError
from msseg_jax.training.log import TrainingLog

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


def test_damaged_lines_are_dropped_and_the_others_stay(tmp_path):
    path = tmp_path / "log.jsonl"
    damaged = [b"\xff\xfe", b"[1]", b'{"step": "x"}', b'{"loss": 1}', b"[" * 10**5, b"null", b""]
    path.write_bytes(b"\n".join([b'{"step": 1}', *damaged, b'{"step": 3}', b'{"step": 4}']))
    with TrainingLog(path, 4, 9, lambda step: RATE) as log:
        log.begin(4)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'  # the last line has no end


def test_a_folder_in_the_place_of_the_log_is_named(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    log = TrainingLog(tmp_path / "log.jsonl", 4, 9, lambda step: RATE)
    with pytest.raises(InputError, match=r"log.jsonl or the event files"):
        log.begin(0)
