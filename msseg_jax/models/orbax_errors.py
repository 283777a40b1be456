"""Let orbax fail without printing tracebacks."""

import contextlib
import inspect
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import absl.logging

ENDING_S = 10.0  # longest wait for the threads of orbax, after it has failed

# How asyncio begins to report work that nobody waits for: the result of a `Task`, a `Future` of
# TensorStore or a `_GatheringFuture`, and a task that has not ended.
_GIVEN_UP = re.compile(r"\w+ exception was never retrieved|Task was destroyed but it is pending")


@contextlib.contextmanager
def without_tracebacks() -> Iterator[None]:
    """Keep the tracebacks of orbax's threads off the terminal, until the block ends.

    If a file cannot be written or read, several threads log the same error. The caller gets it as
    an exception, which says everything. It is raised when these threads have ended. Threads of
    TensorStore and the garbage collector report even later. After an error, what they report about
    given-up work therefore stays hidden until the process ends.
    """
    before = threading.enumerate()
    orbax, tasks = absl.logging.get_absl_logger(), logging.getLogger("asyncio")
    hook = sys.unraisablehook
    has_failed = _is_no_given_up_work in tasks.filters  # in an earlier block
    orbax.addFilter(_is_no_error)
    if not has_failed:
        tasks.addFilter(_is_no_given_up_work)
        sys.unraisablehook = partial(_report_unless_given_up, hook)
    try:
        yield
    except Exception:  # of any kind; it is raised again for the caller
        _wait_for_others_than(before)
        raise
    else:
        if not has_failed:
            sys.unraisablehook = hook
            tasks.removeFilter(_is_no_given_up_work)
    finally:
        orbax.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _is_no_given_up_work(record: logging.LogRecord) -> bool:
    return not _GIVEN_UP.match(record.getMessage())


def _report_unless_given_up(report: Callable[[Any], object], what: Any) -> None:
    """Report an exception that nobody can handle, unless orbax no longer waits for it."""
    is_of_orbax = inspect.iscoroutine(what.object) and (
        f"{os.sep}orbax{os.sep}" in what.object.cr_code.co_filename
    )
    if str(what.exc_value) != "Event loop is closed" and not is_of_orbax:
        report(what)


def _wait_for_others_than(before: list[threading.Thread]) -> None:
    """Wait until the threads that were started since then have ended, at most `ENDING_S`."""
    deadline_s = time.monotonic() + ENDING_S
    for thread in threading.enumerate():
        # The threads of an executor wait for more work, and do not end.
        if thread not in before and not thread.name.startswith("ThreadPool"):
            # Not `thread.join`: orbax's version of it raises the error of the thread.
            threading.Thread.join(thread, max(0.0, deadline_s - time.monotonic()))


def reason_of_failure(error: Exception) -> str:
    """Return why a file could not be written, in the words of the system if there are any."""
    number = re.search(r"os_error_code='(\d+)'", str(error))  # by TensorStore
    return os.strerror(int(number[1])) if number else f"{type(error).__name__}: {error}"
