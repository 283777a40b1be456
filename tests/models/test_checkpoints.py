"""Test that checkpoints are stored completely or not at all, and that failures are said briefly."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from msseg_jax.models import checkpoints as module
from msseg_jax.models.checkpoints import CheckpointError, Checkpoints, Progress
from tests.support.runs import assert_trees_equal
from tests.support.session import ROOT

MODEL = {"a": np.arange(24, dtype=np.float32).reshape(4, 6), "b": np.ones(3, np.float32)}
OPTIMISER = {"m": np.full(3, 0.5, np.float32)}

# No file may exceed the limit, as if the disk were full. Small limits hit orbax's small files.
FULL = """
import logging, resource, sys
from pathlib import Path
import numpy as np
from msseg_jax.models.checkpoints import Checkpoints, Progress
from msseg_jax.system.errors import InputError

logging.basicConfig(level=logging.WARNING)
folder = Path(sys.argv[1])
random = np.random.default_rng(0)
sizes = {"a": 3, "b": 500, "c": 20_000}
model = {name: random.normal(size=size).astype(np.float32) for name, size in sizes.items()}
optimiser = {"m": random.normal(size=1000).astype(np.float32)}
with Checkpoints(folder, keep=2) as checkpoints:
    checkpoints.save(1, model, optimiser, Progress(best_dice=0.5))
    for limit in (10, 300, 2000, 2000, 8192, 8192, 8192):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            checkpoints.save(2, model, optimiser, Progress())
        except InputError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            print(error, flush=True)
        step, read, _, progress = checkpoints.restore_newest(model, optimiser)
        assert step == 1 and progress.best_dice == 0.5
        np.testing.assert_array_equal(read["c"], model["c"])
    checkpoints.save(2, model, optimiser, Progress())
    assert checkpoints.steps() == [2, 1]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of files")
def test_a_full_disk_gives_one_message_without_traceback_and_loses_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "last"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    for line in lines:
        assert line.startswith(f"{tmp_path / 'last'}: step 2 could not be stored (")
        assert "File too large" in line
        assert line.endswith("it resumes from the last complete checkpoint (1).")
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["1", "2"]


def test_a_checkpoint_of_an_earlier_version_has_no_digests_and_is_read(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(6, MODEL, OPTIMISER, Progress())
    shutil.rmtree(tmp_path / "6" / "digests")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match="step 6"):
        checkpoints.restore_newest(MODEL, OPTIMISER)  # they are missing due to damage
    described = tmp_path / "6" / "_CHECKPOINT_METADATA"
    content = json.loads(described.read_text())
    del content["item_handlers"]["digests"]
    described.write_text(json.dumps(content))
    with Checkpoints(tmp_path) as checkpoints:
        step, model, _, _ = checkpoints.restore_newest(MODEL, OPTIMISER)
    assert step == 6
    assert_trees_equal(model, MODEL)


def test_only_a_training_deletes_checkpoints_that_were_not_completed(tmp_path):
    unfinished = tmp_path / "7.orbax-checkpoint-tmp"
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(6, MODEL, OPTIMISER, Progress())
    unfinished.mkdir()
    (unfinished / "half").write_text("half")
    with Checkpoints(tmp_path, create=False) as checkpoints:  # prediction: a training may write
        assert checkpoints.steps() == [6]
    assert unfinished.is_dir()
    with Checkpoints(tmp_path) as checkpoints:
        step, model, _, _ = checkpoints.restore_newest(MODEL, OPTIMISER)
    assert step == 6
    assert_trees_equal(model, MODEL)
    assert not unfinished.exists()


def test_what_a_failed_save_wrote_later_does_not_disturb_the_next_one(tmp_path, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        unfinished = tmp_path / "1.orbax-checkpoint-tmp"
        unfinished.mkdir()
        (unfinished / "late").write_text("late")
        checkpoints.save(1, MODEL, OPTIMISER, Progress())
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        assert not (tmp_path / "1" / "late").exists()
    assert caplog.text == ""


def test_a_checkpoint_is_deleted_completely_or_not_at_all(tmp_path, monkeypatch):
    """Let a process die in the middle of a deletion."""

    def die(path):
        raise KeyboardInterrupt

    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, MODEL, OPTIMISER, Progress())
        monkeypatch.setattr(module.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(3, MODEL, OPTIMISER, Progress())
        monkeypatch.undo()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["1.orbax-checkpoint-tmp-deleted", "2", "3"]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps() == [3, 2]
        checkpoints.save(2, MODEL, OPTIMISER, Progress())  # deletes this step and the later one
        assert checkpoints.steps() == [2]
        for step in (3, 4, 5):
            checkpoints.save(step, MODEL, OPTIMISER, Progress())
        assert checkpoints.steps() == [5, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "5"]


def test_a_checkpoint_is_on_the_disk_when_it_is_stored(tmp_path, monkeypatch):
    synchronised = []
    monkeypatch.setattr(module, "sync_tree", lambda path: synchronised.append(path))
    monkeypatch.setattr(module, "sync_folder", lambda path: synchronised.append(path))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, MODEL, OPTIMISER, Progress())
    assert synchronised == [tmp_path / "3", tmp_path]
