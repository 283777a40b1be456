"""Turn errors of a command into an exit status and a short message without a traceback."""

import io
import os
import sys
from collections.abc import Callable

from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import INTERRUPTED


def run_command(program: str, work: Callable[[], int]) -> int:
    """Do `work` and return its exit status; return 1 after an InputError, an OSError or Ctrl-C.

    Args:
      program: how the user calls the command. Messages on standard error begin with it.
      work: does the work and returns the exit status.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # notebooks replace it with another class
        # When the output is piped into a log file, lines appear there as they are printed.
        sys.stdout.reconfigure(line_buffering=True)
    try:
        return work()
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        # Python flushes standard output when it exits, which would raise the error again.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 1
    except (InputError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: {INTERRUPTED}", file=sys.stderr)
        return 1


def status_after(failures: dict[str, str], total: int, what: str) -> int:
    """List failures on standard error, and return the exit status: 1 if there are any, else 0.

    Args:
      failures: {name of a thing that failed: reason}.
      total: number of things that were processed, including those that failed.
      what: what the things are, in the plural, such as 'patients'.
    """
    if not failures:
        return 0
    print(f"{len(failures)} of {total} {what} failed:", file=sys.stderr)
    for name, reason in failures.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    return 1
