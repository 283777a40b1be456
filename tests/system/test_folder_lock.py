"""Test that two processes cannot lock one folder, and that a dead process locks nothing."""

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys

import pytest

from msseg_jax.system import folder_lock
from msseg_jax.system.errors import InputError
from msseg_jax.system.folder_lock import NAME, locked
from tests.support.session import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from msseg_jax.system.folder_lock import locked
with locked(Path(sys.argv[1]), "--workdir"):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Yield a process that has locked `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, text=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_the_second_process_is_refused_with_the_first_one_named(tmp_path, holder):
    message = (
        rf"--workdir={tmp_path} is in use by process {holder.pid} on {socket.gethostname()} "
        r"\(since .*\)\. .* Wait until that process ends, or choose another --workdir\."
    )
    for _ in range(2):  # a refused process changes nothing
        with pytest.raises(InputError, match=message), locked(tmp_path, "--workdir"):
            pytest.fail("both have the lock")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_its_process(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert json.loads((tmp_path / NAME).read_text())["process"] == holder.pid  # left behind
    with locked(tmp_path, "--workdir"):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_also_holds_in_the_same_process_and_ends_after_an_error(tmp_path):
    with (
        pytest.raises(InputError, match=f"process {os.getpid()} on"),
        locked(tmp_path, "--workdir"),
        locked(tmp_path, "--workdir"),
    ):
        pytest.fail("both have the lock")
    with locked(tmp_path, "--workdir"):
        pass


def test_a_file_that_its_owner_deletes_meanwhile_is_not_locked(tmp_path, monkeypatch):
    """Let the first process delete its file after the second one has opened it."""
    lock, opened = folder_lock._lock, []

    def delete_first(descriptor):
        opened.append(descriptor)
        if len(opened) == 1:
            (tmp_path / NAME).unlink()
        lock(descriptor)

    monkeypatch.setattr(folder_lock, "_lock", delete_first)
    with locked(tmp_path, "--workdir"):
        assert len(opened) == 2
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
        with pytest.raises(InputError, match="in use by"), locked(tmp_path, "--workdir"):
            pytest.fail("both have the lock")


def test_a_file_system_without_locks_gives_a_warning_and_the_work_is_done(
    tmp_path, monkeypatch, caplog
):
    def fail(descriptor):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder_lock, "_lock", fail)
    done = False
    with caplog.at_level(logging.WARNING), locked(tmp_path, "--workdir"):
        done = True
    assert done
    assert f"{tmp_path}: its file system has no locks (No locks available)" in caplog.text


def test_a_lock_that_cannot_be_read_belongs_to_another_process(tmp_path, holder):
    (tmp_path / NAME).write_text("")
    with pytest.raises(InputError, match="is in use by another process"), locked(tmp_path, "--x"):
        pytest.fail("both have the lock")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(InputError, match=r"\.lock cannot be written"), locked(tmp_path, "--x"):
        pytest.fail("there is no lock")
