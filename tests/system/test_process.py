import os
import platform
import signal
import subprocess
import sys

import pytest

from msseg_jax.system import machine as process


def test_threads_limit_the_processors(monkeypatch):
    granted = []
    monkeypatch.setattr(process.os, "sched_getaffinity", lambda pid: {3, 1, 2}, raising=False)
    monkeypatch.setattr(
        process.os, "sched_setaffinity", lambda pid, cpus: granted.append(cpus), raising=False
    )
    monkeypatch.setenv("NPROC", "")
    process.limit_threads(2)
    assert granted == [[1, 2]]
    assert process.os.environ["NPROC"] == "2"


def test_for_each_keeps_the_order_and_does_without_patients():
    assert process.for_each(lambda k: 10 * k, range(20), "tens") == list(range(0, 200, 10))
    assert process.for_each(lambda k: 10 * k, [], "tens") == []


def test_freed_memory_is_taken_again_without_asking_the_system():
    # `mallopt` is glibc's own; on macOS and with musl nothing is set, so nothing is kept.
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the settings are glibc's: elsewhere there is nothing to keep")
    faults = {kept: int(run(CODE.format(kept=kept))) for kept in (False, True)}
    assert faults[False] >= 20  # one for each block, where the system's pages are huge
    assert faults[True] < 0.1 * faults[False]


# Page faults of taking and giving back 64 MB twenty times, after once, in a thread as XLA does.
CODE = """
import resource, threading
from msseg_jax.process import keep_freed_memory
if {kept}:
    keep_freed_memory()
def take():
    b"x" * 2**26
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    take()
    before = faults()
    for _ in range(20):
        take()
    print(faults() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def kill_itself(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_was_killed_is_said_to_be():
    with pytest.raises(process.InputError, match="one of 2 processes ended before its work did"):
        list(process.in_processes(kill_itself, [1, 2], 2))
