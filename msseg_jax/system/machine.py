"""Look up and limit the processors and the memory that this process uses."""

import ctypes
import os

import psutil

# From malloc.h of glibc; see `man mallopt`.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


THREADS = "NPROC"  # environment variable; XLA reads the size of its thread pools from it


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS, and not on Windows
        return len(os.sched_getaffinity(0))
    available = os.cpu_count() or 1
    limit = os.environ.get(THREADS, "")  # set by `limit_threads`, here or in the parent process
    return min(available, int(limit)) if limit.isdecimal() else available


def memory_bytes() -> int:
    """Return the total memory of this machine in bytes."""
    return int(psutil.virtual_memory().total)


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
