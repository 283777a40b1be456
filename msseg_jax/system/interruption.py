"""Stop a program on Ctrl-C, or on SIGTERM, which a scheduler sends at its time limit."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: no error; the same command can be run again
ONE_S = 0.2  # signals within this time count as one, because `timeout` sends each twice
INTERRUPTED = "Interrupted. Run the same command again to resume."
ENDED = (
    "Asked to stop again: ending at once. Run the same command again to resume from the last "
    "checkpoint."
)


class Stopped(Exception):
    """The training was asked to stop and has stored its state."""


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does, until the block ends.

    Import heavy libraries before the block (see `ended_by_signals`).
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def ended_by_signals(message: str, status: int) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once, after a message, until the block ends.

    Use it around imports. Libraries swallow an exception that is raised while they are imported
    (in callbacks of ctypes and in extension modules), or turn it into an ImportError. So no
    exception is raised here. Signals with handlers other than Python's defaults keep them.

    Args:
      message: is printed to standard error.
      status: exit status of the process.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _say(message)
        os._exit(status)

    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    in_main_thread = threading.current_thread() is threading.main_thread()
    changed = [
        number
        for number, handler in usual.items()
        if in_main_thread and signal.getsignal(number) == handler
    ]
    for number in changed:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, usual[number])


class Interruption:
    """Context manager that records a first signal, and ends the process at once on a second one.

    Python calls a signal handler only after its main thread has returned from a library: after a
    step, or after a compilation, which may take a minute. Also, an exception in the middle of a
    compilation may crash it. Therefore a thread reads the signals from a pipe. Python writes the
    number of each signal to this pipe as soon as it arrives.

    Attributes:
      asked: whether a signal has asked the program to stop.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._reading_end, self._writing_end = os.pipe()
        os.set_blocking(self._writing_end, False)  # as `set_wakeup_fd` requires
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._wakeup_before = signal.set_wakeup_fd(self._writing_end)
        self._handlers_before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writing_end)  # The listener then reaches the end of the pipe and returns.
        self._listener.join()
        os.close(self._reading_end)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def _listen(self) -> None:
        first_s = None
        while received := os.read(self._reading_end, 1):
            number, now_s = received[0], time.monotonic()
            if number not in SIGNALS:
                continue
            if first_s is None:
                first_s = now_s
                _say(
                    "Asked to stop: storing the state after this step. A second signal (Ctrl-C) "
                    "ends the process at once."
                )
            elif now_s - first_s > ONE_S:
                _say(ENDED)
                # This leaves no half-written checkpoint: each is renamed when it is complete.
                os._exit(128 + number)


def _say(line: str) -> None:
    """Write a line to standard error.

    It bypasses Python's buffer, which may be in use when a signal arrives. It begins with a line
    break, because a progress bar may be on the current line.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
