import platform
import subprocess
import sys

import pytest

from msseg_jax.system import machine


def test_limit_threads_limits_the_processors(monkeypatch):
    granted = []
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {3, 1, 2}, raising=False)
    monkeypatch.setattr(
        machine.os, "sched_setaffinity", lambda pid, cpus: granted.append(cpus), raising=False
    )
    monkeypatch.setenv("NPROC", "")
    machine.limit_threads(2)
    assert granted == [[1, 2]]
    assert machine.os.environ["NPROC"] == "2"


def test_freed_memory_is_reused_without_a_request_to_the_system():
    # Only glibc has `mallopt`. On macOS and with musl nothing is set, so no memory is kept.
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc has these settings")
    faults = {kept: int(run(CODE.format(kept=kept))) for kept in (False, True)}
    assert faults[False] >= 20  # at least one per block, if the system uses huge pages
    assert faults[True] < 0.1 * faults[False]


# Counts page faults while 64 MB are allocated and freed twenty times, after a first time. This is
# done in a thread, as in XLA.
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
