"""Being asked to stop: by Ctrl-C, or by a scheduler whose time is up."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on


class Stopped(Exception):
    """The training was asked to stop, and has stored its state."""


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

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)
