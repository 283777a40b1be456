"""Test that the benchmark of killed trainings notices every kind of difference."""

import json
import shutil

import numpy as np
import pytest

from benchmarks.kills import differences
from benchmarks.watched_training import PHASES, Phase
from msseg_jax.models.checkpoints import Checkpoints, Progress

NEXT = np.nextafter(np.float32(1), np.float32(2))  # the smallest difference from 1


def save(run, kind, model, optimiser=1.0, dice=0.25):
    """Replace the checkpoint of one kind."""
    shutil.rmtree(run / "checkpoints" / kind, ignore_errors=True)
    with Checkpoints(run / "checkpoints" / kind) as checkpoints:
        weights, moments = np.float32([model, 2.0]), np.float32([optimiser])
        checkpoints.save(4, {"w": weights}, {"m": moments}, Progress(best_dice=dice))


@pytest.fixture
def runs(tmp_path):
    """Return the folders of two equal runs, with different times in their logs."""
    one, other = tmp_path / "one", tmp_path / "other"
    for name in ("evaluation", "predictions", "probabilities"):
        (one / name).mkdir(parents=True)
    for name in ("split.json", "preprocessing.json", "evaluation/evaluation.json"):
        (one / name).write_text("{}")
    (one / "predictions" / "anna.nii.gz").write_bytes(b"mask")
    for kind in ("last", "best"):
        save(one, kind, 1.0)
    shutil.copytree(one, other)
    for run, speed in ((one, 3.5), (other, 4.5)):
        lines = [{"step": 4, "loss": 0.5, "patches_per_s": speed}, {"step": 4, "validation": {}}]
        (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return one, other


def test_equal_runs_have_no_difference(runs):
    assert differences(*runs) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda run: save(run, "last", NEXT), "last/4/model['w'] differs"),
        (lambda run: save(run, "best", 1.0, optimiser=-1), "best/4/optimiser['m'] differs"),
        (lambda run: save(run, "last", 1.0, dice=0.5), "last/4/progress"),
        (lambda run: (run / "checkpoints" / "last" / "4").rename(
            run / "checkpoints" / "last" / "3"), "checkpoints/last: ['4'] and ['3']"),
        (lambda run: (run / "log.jsonl").write_text(
            '{"step": 4, "loss": 0.6}\n{"step": 4, "validation": {}}\n'), "log.jsonl, line 1"),
        (lambda run: (run / "log.jsonl").write_text('{"step": 4, "loss": 0.5}\n'),
         "log.jsonl has 2 and 1 lines"),
        (lambda run: (run / "predictions" / "anna.nii.gz").write_bytes(b"MASK"),
         "predictions/anna.nii.gz differs"),
        (lambda run: (run / "split.json").write_text("[]"), "split.json differs"),
        (lambda run: (run / ".partial-0123456789ab.json").touch(), "left behind: "),
    ],
)  # fmt: skip
def test_every_kind_of_difference_is_found(runs, change, found):
    change(runs[1])
    problems = differences(*runs)
    assert len(problems) == 1
    assert found in problems[0]


def test_the_phase_of_another_process_is_read_from_the_shared_file(tmp_path):
    file = tmp_path / "phase"
    file.write_bytes(b"\0")
    watched, watching = Phase(file), Phase(file)
    assert watching.get() == "starting"
    watched.set("stepping")
    seen = watched.during("storing", lambda: watching.get())()
    assert (seen, watching.get()) == ("storing", "stepping")
    assert file.read_bytes() == bytes([PHASES.index("stepping")])
