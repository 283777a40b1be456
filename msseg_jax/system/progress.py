"""How far long work is: a bar where someone is looking, plain lines where it goes into a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized

from tqdm import tqdm

LINE_S = 30.0  # at least between two lines about the same work


@contextlib.contextmanager
def steps(name: str) -> Iterator[Callable[[str], None]]:
    """While this is entered, what it gives is told of each step of some work when it begins."""
    if sys.stderr.isatty():
        with tqdm(total=0, bar_format=f"{name}: {{desc}}", leave=False) as line:
            yield line.set_description_str
    else:
        yield lambda step: _log(f"{name}: {step}")


def followed(things: Iterable, name: str, least_s: float = LINE_S) -> Iterator:
    """The things one after the other, and how many of them are done.

    Args:
      least_s: between two lines in a log.
    """
    if sys.stderr.isatty():
        yield from tqdm(things, name, leave=False)
        return
    total = f" of {len(things)}" if isinstance(things, Sized) else ""
    said_s = time.monotonic()
    for done, thing in enumerate(things, start=1):
        yield thing
        if time.monotonic() - said_s >= least_s:
            said_s = time.monotonic()
            _log(f"{name}: {done}{total} done")


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
