"""The tests that need a GPU: `pytest -m gpu`."""

import re
import subprocess
import sys

FOLDER = "tests/network"  # the others need libraries that may be missing


def run(task):
    """Run the tests, and report pytest's last line and the tests that failed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-rfEs", FOLDER]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout[-20_000:], done.stderr[-5_000:])
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    failed = [line for line in lines if re.match("(FAILED|ERROR) ", line)]
    task.report(last_line=lines[-1], failed=failed)
    if not task.on_gpu():
        return
    if done.returncode:
        sys.exit(f"pytest ended with {done.returncode}")
