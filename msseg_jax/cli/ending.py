"""Turn errors of a command into an exit status and a short message without a traceback."""

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import indent

from msseg_jax.system.errors import InputError
from msseg_jax.system.failures import reason_of
from msseg_jax.system.interruption import INTERRUPTED
from msseg_jax.system.words import closing_line, count_of, duration

BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell shows for `cat` and other tools in this case

CONTINUED = "    "  # before the further lines of a reason
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk or a quota


def run_command(program: str, work: Callable[[], int], *, owns_process: bool = False) -> int:
    """Do `work` and return its exit status.

    It is 1 after an InputError, an OSError, a MemoryError or Ctrl-C, and 141 if the reader of the
    output, such as `head`, has closed it.

    Args:
      program: how the user calls the command. Messages on standard error begin with it.
      work: does the work and returns the exit status.
      owns_process: whether the process ends after this command. After Ctrl-C it then ends here.

    Raises:
      SystemExit: `work` raised it, such as after --help.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # notebooks replace it with another class
            # When the output is piped into a log file, lines appear there as they are printed. A
            # file name may hold bytes that are no text, which must not stop the work.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        try:
            return work()
        finally:
            # Errors of the output show here, and not when the interpreter exits.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except MemoryError as error:
        _say(f"{program}: {reason_of(error)}")
        return 1
    except (InputError, OSError) as error:
        _drop_broken_output()
        full = isinstance(error, OSError) and error.errno in FULL and error.filename is None
        _say(f"{program}: {'the output cannot be written: ' if full else ''}{error}")
        return 1
    except KeyboardInterrupt:
        _say(f"{program}: {INTERRUPTED}")
        if owns_process:
            # Not sys.exit: Python may crash while it exits if a compilation was interrupted.
            os._exit(1)
        return 1


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be reading
        print(line, file=sys.stderr, flush=True)


def _drop_broken_output() -> None:
    """Drop the rest of the standard output if it cannot be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """Send standard output to nowhere: Python flushes it at exit, which would fail again."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends


def status_after(failures: Mapping[str, str], total: int, what: str) -> int:
    """List failures on standard error, and return the exit status: 1 if there are any, else 0.

    Args:
      failures: {name of a thing that failed: reason}.
      total: number of things that were processed, including those that failed.
      what: what a thing is, in the singular, such as 'patient'.
    """
    if not failures:
        return 0
    print(f"{len(failures)} of {count_of(total, what)} failed:", file=sys.stderr)
    for name, reason in failures.items():
        print(f"  {name}: {indent(reason, CONTINUED).lstrip()}", file=sys.stderr)
    return 1


def last_line(kind: str, path: Path, content: str, began_s: float) -> str:
    """Return the last line of a command, such as 'report: new.html (4 lesions), 73 s'.

    Args:
      kind: what to open.
      path: where it is.
      content: what it holds, with one count.
      began_s: time.perf_counter() when the command began.
    """
    return closing_line(kind, path, content, duration(time.perf_counter() - began_s))


def patients_in_words(total: int, failed: int, done_before: int = 0) -> str:
    """Return the number of patients, and of those that failed or were done before."""
    text = count_of(total, "patient")
    if failed:
        text += f", {failed} failed"
    if done_before:
        text += f", {done_before} done before"
    return text
