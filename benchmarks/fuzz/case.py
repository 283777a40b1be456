"""Run one case of a target, and measure it."""

import hashlib
import random
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from msseg_jax.system.errors import InputError

READ, REFUSED = "read", "refused"  # every other kind of outcome is a finding

LONGEST_S = 5.0
MOST_MB = 1000.0
LONGEST_MESSAGE = 4000  # characters; a terminal shows about 50 lines of 80
HEADROOM_BYTES = 6 * 2**30  # a case may allocate this before the system refuses more

_ROOT = Path(__file__).parents[2]
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class WrongReading(Exception):
    """A target has read a value that differs from the one in the file."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case."""

    number: int
    kind: str  # READ, REFUSED, or the name of a finding; equal findings have equal names
    text: str = ""  # traceback or message
    seconds: float = 0.0
    peak_mb: float = 0.0  # memory that the case needed in addition; 0 where it is not measured


def generator(seed: int, target: str, number: int) -> random.Random:
    """Return the random numbers of one case. They depend only on the three arguments."""
    return random.Random(f"{seed}/{target}/{number}")


def run_case(target: ModuleType, number: int, case: Path) -> Outcome:
    """Let a target read the input in the folder `case`, and judge what it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before_mb = _reset_peak_mb()
        start, cpu_start = time.perf_counter(), time.process_time()
        kind, text = _use(target, case)
        # The smaller one, because a busy machine makes a case take longer, and several threads use
        # more than one processor.
        seconds = min(time.perf_counter() - start, time.process_time() - cpu_start)
        peak_mb = max(_memory_mb("VmHWM") - before_mb, 0.0)
    if kind in (READ, REFUSED):
        if seconds > LONGEST_S:
            kind = f"takes more than {LONGEST_S:g} s"
        elif peak_mb > MOST_MB:
            kind = f"needs more than {MOST_MB:g} MB"
        elif len(text) > LONGEST_MESSAGE:
            kind = "message is too long"
    return Outcome(number, kind, text, seconds, peak_mb)


def _use(target: ModuleType, case: Path) -> tuple[str, str]:
    try:
        target.use(case)
    except InputError as error:
        if any(isinstance(one, MemoryError) for one in _chain(error)):
            return f"memory ran out: {_place(error)}", traceback.format_exc()
        return REFUSED, str(error)
    except Exception as error:  # this is what we look for
        return f"{type(error).__name__}: {_place(error)}", traceback.format_exc()
    return READ, ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _place(error: BaseException) -> str:
    """Return the last place in this project from which an error came, such as 'nifti.py:66'."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if (path := Path(frame.filename)).is_relative_to(_ROOT)
        and "site-packages" not in path.relative_to(_ROOT).parts
    ]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def limit_memory() -> None:
    """Let this process allocate no more than HEADROOM_BYTES in addition, to protect the machine."""
    size_mb = _memory_mb("VmSize")
    if size_mb:
        import resource  # Windows does not have it

        limit = int(size_mb * 1e6) + HEADROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _reset_peak_mb() -> float:
    """Let the system measure the peak of the memory from now on; return the current memory, MB."""
    if _CLEAR.exists():
        _CLEAR.write_text("5", encoding="utf-8")  # see `man 5 proc_pid_clear_refs`
    return _memory_mb("VmRSS")


def _memory_mb(field: str) -> float:
    """Return a field of the status of this process in MB, or 0 on a system without /proc."""
    if not _STATUS.exists():
        return 0.0
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def digest(kind: str) -> str:
    """Return a short name for a kind of finding, for the name of a folder."""
    return hashlib.sha256(kind.encode()).hexdigest()[:8]
