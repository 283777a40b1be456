"""Being asked to stop: by Ctrl-C, or by a scheduler whose time is up."""

import contextlib
import os
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on
INTERRUPTED = "interrupted; the same command goes on"


class Stopped(Exception):
    """The training was asked to stop, and has stored its state."""


@contextlib.contextmanager
def sigterm_as_ctrl_c():
    """While this is entered, SIGTERM raises KeyboardInterrupt, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interruption:
    """While this is entered, a first signal is noted; a second one has its usual effect."""

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        self._restore()

    def _note(self, number, frame):
        self.asked = True
        self._restore()
        # A step may take long. Not by print, which fails where it interrupts another; and begun
        # with a new line, as a bar may be there.
        with contextlib.suppress(OSError):
            os.write(2, b"\nasked to stop: storing after this step; once more ends at once\n")

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)
