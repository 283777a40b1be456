"""Show the progress of long work: as a bar on a terminal, as plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized

from tqdm import tqdm

LINE_S = 30.0  # shortest time between two lines about the same work


@contextlib.contextmanager
def steps(name: str) -> Iterator[Callable[[str], None]]:
    """Yield a function. Call it with the name of each step of some work when the step begins."""
    if sys.stderr.isatty():
        with tqdm(total=0, bar_format=f"{name}: {{desc}}", leave=False) as line:
            yield line.set_description_str
    else:
        yield lambda step: _log(f"{name}: {step}")


def followed(things: Iterable, name: str, least_s: float = LINE_S) -> Iterator:
    """Yield the things one after the other, and show how many of them are done.

    Args:
      least_s: shortest time between two lines in a log.
    """
    if sys.stderr.isatty():
        yield from tqdm(things, name, leave=False)
        return
    total = f" of {len(things)}" if isinstance(things, Sized) else ""
    last_line_s = time.monotonic()
    for done, thing in enumerate(things, start=1):
        yield thing
        if time.monotonic() - last_line_s >= least_s:
            last_line_s = time.monotonic()
            _log(f"{name}: {done}{total} done")


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
