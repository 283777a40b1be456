"""What a process takes of its machine: processors and memory."""

import ctypes
import os

import psutil

# From malloc.h of glibc; `man mallopt` says what they mean.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


THREADS = "NPROC"  # the variable by which XLA sizes its thread pools


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # neither on macOS nor on Windows
        return len(os.sched_getaffinity(0))
    there_are = os.cpu_count() or 1
    limit = os.environ.get(THREADS, "")  # of `limit_threads`, in this process or its parent
    return min(there_are, int(limit)) if limit.isdecimal() else there_are


def memory_bytes() -> int:
    """Return the memory of this machine."""
    return int(psutil.virtual_memory().total)


def limit_threads(threads: int) -> None:
    """Use at most `threads` processors; to be called before JAX is imported."""
    os.environ[THREADS] = str(threads)
    if hasattr(os, "sched_setaffinity"):  # and what the system grants, where it can be told
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])


def keep_freed_memory() -> None:
    """Large blocks that are freed stay with the process; to be called before JAX is imported.

    glibc gives them back to the system at once. XLA frees and takes hundreds of MB with every
    call, and the system clears each page anew, which a forward pass on a CPU takes longer for
    (`python -m benchmarks.step`, with and without `--give_back`). Without glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_ARENA_MAX, 1)  # one heap for all threads: a thread's own has at most 64 MB
    mallopt(M_MMAP_MAX, 0)  # large blocks from the heap as well
    mallopt(M_TRIM_THRESHOLD, -1)  # which never shrinks
