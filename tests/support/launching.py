"""Start launch.py in a process, as a user does, and read what processes print."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.session import COMPILED, ROOT


class Launch:
    """Starts launch.py with `tests/support/tiny.py`. As a context manager, kills what it started.

    Args:
      root: folder of the patients.
      devices: number of CPU devices of JAX.
    """

    def __init__(self, root: Path, devices: int = 1):
        self._started: list[subprocess.Popen] = []
        self._command = [
            sys.executable, "launch.py", "--config=tests/support/tiny.py",
            f"--config.data.root={root}",
        ]  # fmt: skip
        self._environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
        self._environment.pop("PYTHONUNBUFFERED", None)  # users do not set it
        # Share the compiled programs between the processes.
        self._environment["JAX_COMPILATION_CACHE_DIR"] = COMPILED
        self._environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def start(self, workdir: Path, *flags: str) -> subprocess.Popen:
        """Start a process. Its standard output and standard error are one stream of text."""
        process = subprocess.Popen(
            [*self._command, f"--workdir={workdir}", *flags], cwd=ROOT,
            env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, workdir: Path, *flags: str) -> tuple[int, str]:
        """Run a process to its end, and return its exit status and output."""
        process = self.start(workdir, *flags)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Kill the processes that a failed test has left running."""
        for process in self._started:
            process.kill()
            process.wait()
            process.stdout.close()


def rest_of_output(process: subprocess.Popen, timeout_s: float) -> tuple[str, str]:
    """Wait until a process has ended, and return the rest of its output and of its errors.

    Use it after `process.stdout.readline()`, which may read more than the line that it returns.
    `process.communicate(timeout=...)` does not return those additional lines.

    Args:
      process: was started with `text=True`.
      timeout_s: a process that still runs after this time is killed.

    Returns:
      (rest of standard output, rest of standard error). A stream without a pipe gives "".
    """
    killer = threading.Timer(timeout_s, process.kill)
    killer.start()
    try:
        streams = (process.stdout, process.stderr)
        output, errors = ("" if stream is None else stream.read() for stream in streams)
        process.wait()
    finally:
        killer.cancel()
    return output, errors
