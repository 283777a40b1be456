import platform
import subprocess
import sys

import pytest

from msseg_jax.system import machine


def test_threads_limit_the_processors(monkeypatch):
    granted = []
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {3, 1, 2}, raising=False)
    monkeypatch.setattr(
        machine.os, "sched_setaffinity", lambda pid, cpus: granted.append(cpus), raising=False
    )
    monkeypatch.setenv("NPROC", "")
    machine.limit_threads(2)
    assert granted == [[1, 2]]
    assert machine.os.environ["NPROC"] == "2"


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
from msseg_jax.system.machine import keep_freed_memory
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
