import gc
import platform
import subprocess
import sys
from types import SimpleNamespace

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


@pytest.mark.parametrize(
    ("group", "limits", "expected"),
    [
        ("0::/job/step", {"job/memory.max": "max", "job/step/memory.max": "3000"}, 3000),
        ("0::/job/step", {"job/memory.max": "2000", "job/step/memory.max": "3000"}, 2000),
        ("0::/", {"memory.max": "4000"}, 4000),
        ("0::/not/visible/here", {"memory.max": "4000"}, 4000),
        ("4:memory:/job", {"memory/job/memory.limit_in_bytes": "5000"}, 5000),
        ("4:cpu,memory:/job", {"memory/memory.limit_in_bytes": "6000"}, 6000),
        ("4:memory:/job", {"memory/job/memory.limit_in_bytes": str(2**63 - 4096)}, 10_000),
        ("4:cpu:/job", {"memory/job/memory.limit_in_bytes": "5000"}, 10_000),
        ("0::/job", {"job/memory.max": "max"}, 10_000),
    ],
)
def test_the_memory_limit_of_a_container_is_respected(
    tmp_path, monkeypatch, group, limits, expected
):
    for name, value in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    memory = SimpleNamespace(total=10_000)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: memory)
    read_text = machine.Path.read_text
    monkeypatch.setattr(
        machine.Path,
        "read_text",
        lambda path, **how: (
            f"{group}\n" if str(path) == "/proc/self/cgroup" else read_text(path, **how)
        ),
    )
    assert machine.memory_bytes() == expected


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


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_collection_is_as_before_after_it_was_switched_off(collects):
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with machine.without_garbage_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
