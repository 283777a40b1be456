"""Being asked to stop: by Ctrl-C, or by a scheduler whose time is up."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on
ONE_S = 0.2  # `timeout` sends a signal twice: what comes so soon after the first is the same
INTERRUPTED = "interrupted; the same command goes on"
ENDED = "asked to stop once more: ended; the same command goes on from the last checkpoint"


class Stopped(Exception):
    """The training was asked to stop, and has stored its state."""


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """While this is entered, SIGTERM raises KeyboardInterrupt, too.

    Import heavy libraries before: see `ended_by_signals`.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def ended_by_signals(message: str, status: int) -> Iterator[None]:
    """While this is entered, Ctrl-C and SIGTERM end the process at once, after a message.

    It is for imports. Libraries swallow an exception that is raised while they are imported
    (callbacks of ctypes, extension modules), or turn it into an ImportError. So no exception is
    raised. Signals that the user has set otherwise stay as they are.

    Args:
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
    """While this is entered, a first signal is noted, and a second one ends the process at once.

    Python calls a handler when its main thread comes back from the library that it waits in: after
    a step, or after a compilation, which may take a minute; and an exception in the middle of a
    compilation may bring it down. So a thread listens, and the system writes it the number of each
    signal as it arrives.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)  # Python wants it so
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._heard_before = signal.set_wakeup_fd(self._mouth)
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._heard_before)
        os.close(self._mouth)  # which is the end of what the listener hears
        self._listener.join()
        os.close(self._ear)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def _listen(self) -> None:
        first_s = None
        while heard := os.read(self._ear, 1):
            number, now_s = heard[0], time.monotonic()
            if number not in SIGNALS:
                continue
            if first_s is None:
                first_s = now_s
                _say(
                    "asked to stop: storing after this step; a second signal (Ctrl-C) ends at once"
                )
            elif now_s - first_s > ONE_S:
                _say(ENDED)
                # No checkpoint is left half-written: each is renamed when it is complete.
                os._exit(128 + number)


def _say(line: str) -> None:
    """A line on standard error, whatever else is being written; a bar may stand where it begins."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
