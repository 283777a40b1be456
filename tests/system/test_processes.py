"""Test work on many items, in threads and in separate processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from msseg_jax.system.failures import continuing_after
from msseg_jax.system.processes import do_each, for_each
from tests.support.session import ROOT


def test_for_each_keeps_the_order_and_accepts_an_empty_list():
    assert for_each(lambda k: 10 * k, range(20), "tens") == list(range(0, 200, 10))
    assert for_each(lambda k: 10 * k, [], "tens") == []


def halve(number: int) -> tuple[float, int]:
    """Return half of the number, and the process. 0 crashes, and odd numbers raise an error."""
    if number == 0:
        os._exit(3)
    if number % 2:
        raise ArithmeticError(f"{number} is odd")
    return number / 2, os.getpid()


@pytest.mark.parametrize("options", [{"jobs": 2}, {"jobs": 1, "isolated": True}])
def test_each_task_has_a_process_and_a_crash_affects_no_other_task(options, capsys):
    failures = {}
    tasks = {"crash": 0, "two": 2, "odd": 3, "four": 4}
    done = dict(do_each(halve, tasks, failures=failures, **options))
    assert {name: half for name, (half, _) in done.items()} == {"two": 1, "four": 2}
    assert len({process for _, process in done.values()} | {os.getpid()}) == 3
    assert failures["odd"] == "ArithmeticError: 3 is odd"
    assert failures["crash"].startswith(
        "its process ended with status 3 before its work was done, perhaps"
    )
    output = capsys.readouterr().out
    assert f"odd: failed: {failures['odd']} (" in output
    assert " of 4)" in output


def test_with_one_job_the_work_is_done_in_this_process():
    failures = {}
    done = list(do_each(halve, {"two": 2, "odd": 3, "four": 4}, 1, failures))
    assert done == [("two", (1, os.getpid())), ("four", (2, os.getpid()))]
    assert failures == {"odd": "ArithmeticError: 3 is odd"}


def unpicklable(_):
    class Odd(Exception):
        pass

    raise Odd("what")


def test_an_error_that_cannot_be_pickled_is_reported():
    failures = {}
    assert list(do_each(unpicklable, {"a": 1, "b": 2}, 2, failures)) == []
    assert failures == {"a": "Odd: what", "b": "Odd: what"}


def test_ctrl_c_does_not_count_as_a_failure():
    failures = {}
    with pytest.raises(KeyboardInterrupt), continuing_after("anna", failures):
        raise KeyboardInterrupt
    assert failures == {}


SCRIPT = """
import sys, time
from functools import partial
from pathlib import Path
from msseg_jax.system.atomic import whole_folder
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.processes import do_each

def wait(place):
    with whole_folder(place):
        while True:
            time.sleep(0.1)

if __name__ == "__main__":
    root = Path(sys.argv[1])
    with sigterm_as_ctrl_c():
        list(do_each(wait, {name: root / name for name in "ab"}, 2, {}))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_clean_up_and_end_with_their_parent(tmp_path, number):
    (tmp_path / "script.py").write_text(SCRIPT)
    root = tmp_path / "root"
    root.mkdir()
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py", root], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(list(root.iterdir())) < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)  # returns when no process has the output open
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else -signal.SIGINT)
    assert list(root.iterdir()) == []
