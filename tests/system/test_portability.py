"""Test that the users' commands start without the modules and names that only Unix has."""

import subprocess
import sys

import pytest

# These modules and names are missing on Windows, and some of the names on macOS as well. The
# standard library (`asyncio`, `multiprocessing` and others) checks for them and works without them.
CODE = """
import importlib, io, os, runpy, signal, sys

MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "posix")
FORK = ("fork", "forkpty", "sysconf", "getuid", "geteuid", "getpgid", "setsid", "killpg", "uname",
        "sched_getaffinity", "sched_setaffinity", "getloadavg", "mkfifo", "wait3", "wait4")
SIGNALS = ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGCHLD", "SIGPIPE")

import {work}  # with its libraries, which may use these modules
ours = [name for name in sys.modules if name.split(".")[0] == "msseg_jax"]
for name in ours:
    del sys.modules[name]
# Import our modules again, without these modules and names.
for name in MODULES:
    sys.modules[name] = None
for module, names in ((os, FORK), (signal, SIGNALS)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import {work}
from msseg_jax.system.machine import limit_threads, memory_bytes, processors
assert processors() >= 1 and memory_bytes() > 2**20
limit_threads(1)
from msseg_jax.cli.main import main
main(["{command}", "--help"])
"""
WORK = {
    "predict": "msseg_jax.cli.predict, msseg_jax.cli.predict_scans",
    "prepare": "msseg_jax.cli.prepare",
    "evaluate": "msseg_jax.cli.evaluate, msseg_jax.report.evaluation_folder",
}


@pytest.mark.parametrize("command", WORK)
def test_users_commands_start_without_modules_that_windows_lacks(command):
    code = CODE.format(work=WORK[command], command=command)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"msseg {command}" in done.stdout
