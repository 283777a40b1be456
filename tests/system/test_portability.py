"""What users run works without what only Unix has: no import and no use when they begin."""

import subprocess
import sys

import pytest

# Modules and names that Windows lacks; macOS lacks some of the names as well. `asyncio`,
# `multiprocessing` and others of the standard library look for them and do without.
CODE = """
import importlib, io, os, runpy, signal, sys

MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "posix")
FORK = ("fork", "forkpty", "sysconf", "getuid", "geteuid", "getpgid", "setsid", "killpg", "uname",
        "sched_getaffinity", "sched_setaffinity", "getloadavg", "mkfifo", "wait3", "wait4")
SIGNALS = ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGCHLD", "SIGPIPE")

import {work}  # with the libraries it needs, which know their systems
ours = [name for name in sys.modules if name.split(".")[0] == "msseg_jax"]
for name in ours:
    del sys.modules[name]
# Ours once more, without.
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
def test_the_commands_of_users_need_nothing_that_windows_lacks(command):
    code = CODE.format(work=WORK[command], command=command)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"msseg {command}" in done.stdout
