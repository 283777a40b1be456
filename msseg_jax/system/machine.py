"""Look up and limit the processors and the memory that this process uses."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

# From malloc.h of glibc; see `man mallopt`.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

CGROUPS = Path("/sys/fs/cgroup")
THREADS = "NPROC"  # environment variable; XLA reads the size of its thread pools from it


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS, and not on Windows
        return len(os.sched_getaffinity(0))
    available = os.cpu_count() or 1
    limit = os.environ.get(THREADS, "")  # set by `limit_threads`, here or in the parent process
    return min(available, int(limit)) if limit.isdecimal() else available


def memory_bytes() -> int:
    """Return the memory that this process may use, in bytes.

    It is that of the machine, or the limit of a container or of a job, if that is lower.
    """
    return min([int(psutil.virtual_memory().total), *_cgroup_limits()])


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Do not look for garbage until the block ends. Importing the libraries is faster like this.

    They create many objects and hardly any garbage.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _cgroup_limits() -> Iterator[int]:
    """Yield the memory limits of the control groups (v1 and v2) of this process, in bytes.

    Docker, Kubernetes and Slurm limit memory in this way. A limit of a group also applies to the
    groups inside it. Inside a container, the path of the own group may not exist; the limit is
    then that of the root. There are no control groups on other systems than Linux.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == root.parent:
                break
            with contextlib.suppress(OSError, ValueError):  # 'max' is no limit
                yield int((folder / name).read_text(encoding="utf-8"))


def limit_threads(threads: int) -> None:
    """Limit this process to `threads` processors. Call this before JAX is imported."""
    os.environ[THREADS] = str(threads)
    if hasattr(os, "sched_setaffinity"):  # not on macOS, and not on Windows
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])


def keep_freed_memory() -> None:
    """Keep large freed blocks of memory in this process. Call this before JAX is imported.

    By default, glibc returns such blocks to the system at once. XLA allocates and frees hundreds
    of MB in every call, and the system clears each page before it is used again. This slows down a
    forward pass on a CPU (compare `python -m benchmarks.step` with and without `--give_back`).
    Without glibc this function does nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_ARENA_MAX, 1)  # one heap for all threads: a heap per thread has at most 64 MB
    mallopt(M_MMAP_MAX, 0)  # allocate large blocks from the heap, too
    mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap
