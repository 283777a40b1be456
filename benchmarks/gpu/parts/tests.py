"""The tests that need a GPU: `pytest -m gpu`."""

import re
import subprocess
import sys

FILE = "tests/network/test_gpu.py"  # all tests that need a GPU
OPTIONS = ("-o", "addopts=", "-m", "gpu", "-v", "-rfEs")  # no plugins that may be missing


def run(task):
    """Run the tests, and report pytest's last line and the tests that failed."""
    command = [sys.executable, "-m", "pytest", *OPTIONS, FILE]
    lines = ["no output"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:  # printed at once, because this part may be stopped
            print(line, end="", flush=True)
            if line.strip():
                lines.append(line.strip())
    failed = [line for line in lines if re.match("(FAILED|ERROR) ", line)]
    task.report(last_line=lines[-1], failed=failed)
    if task.on_gpu() and process.returncode:
        sys.exit(f"pytest ended with {process.returncode}")
