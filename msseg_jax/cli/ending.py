"""How a command line ends: an exit status, and a line in place of a traceback."""

import io
import sys
from collections.abc import Callable

from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import INTERRUPTED


def run_command(program: str, work: Callable[[], int]) -> int:
    """What `work` returns, an exit status; 1 if bad input, the system or Ctrl-C stopped it.

    Args:
      program: that a message on standard error begins with.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook has its own
        sys.stdout.reconfigure(line_buffering=True)  # a log that is piped into a file is read there
    try:
        return work()
    except (InputError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: {INTERRUPTED}", file=sys.stderr)
        return 1


def status_after(failures: dict[str, str], total: int, what: str) -> int:
    """List on standard error what failed of so many, and why: the exit status, 0 if nothing did.

    Args:
      failures: reasons by name.
      what: they are, in the plural.
    """
    if not failures:
        return 0
    print(f"{len(failures)} of {total} {what} failed:", file=sys.stderr)
    for name, reason in failures.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    return 1
