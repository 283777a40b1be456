"""How a command line ends: an exit status, and a line in place of a traceback."""

import io
import os
import sys
from collections.abc import Callable

from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import INTERRUPTED


def run_command(program: str, work: Callable[[], int]) -> int:
    """Return the exit status that `work` returns; 1 if bad input, the system or Ctrl-C ends it.

    Args:
      program: with which a message on standard error begins.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook has its own
        sys.stdout.reconfigure(line_buffering=True)  # a log that is piped into a file is read there
    try:
        return work()
    except BrokenPipeError:  # whoever reads the output, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for what Python flushes as it ends
        return 1
    except (InputError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: {INTERRUPTED}", file=sys.stderr)
        return 1


def status_after(failures: dict[str, str], total: int, what: str) -> int:
    """Return the exit status after some work on many things; list on standard error what failed.

    Args:
      failures: reasons by name.
      total: how many things there were.
      what: the things are, in the plural.
    """
    if not failures:
        return 0
    print(f"{len(failures)} of {total} {what} failed:", file=sys.stderr)
    for name, reason in failures.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    return 1
