"""Test how a command ends: its exit status, and its message on standard error."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from msseg_jax.cli.ending import last_line, patients_in_words, run_command, status_after
from msseg_jax.system.errors import InputError
from msseg_jax.system.words import duration
from tests.support.session import ROOT


def raising(error):
    """Return a function that raises an error."""

    def work():
        raise error

    return work


@pytest.mark.parametrize("status", [0, 1])
def test_the_exit_status_is_that_of_the_work(capsys, status):
    assert run_command("program", lambda: status) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("a.nii: no scan"), "a.nii: no scan"),
        (OSError("No space left on device"), "No space left on device"),
        (
            MemoryError("Unable to allocate 9 GiB"),
            "memory ran out. Close other programs, or use a machine with more memory. Unable to "
            "allocate 9 GiB",
        ),
        (KeyboardInterrupt(), "Interrupted. Run the same command again to resume."),
    ],
)
def test_an_expected_error_gives_one_line_and_status_1(capsys, error, message):
    assert run_command("program", raising(error)) == 1
    assert capsys.readouterr().err == f"program: {message}\n"


def test_standard_output_may_be_any_writable_object():
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert run_command("program", lambda: print("done") or 0) == 0
    assert output.getvalue() == "done\n"


def test_every_failure_is_listed_with_its_reason(capsys):
    assert status_after({}, 3, "scan") == 0
    assert capsys.readouterr().err == ""
    assert status_after({"anna": "no head", "bea": "no FLAIR\nno mask"}, 3, "scan") == 1
    assert capsys.readouterr().err == (
        "2 of 3 scans failed:\n  anna: no head\n  bea: no FLAIR\n    no mask\n"
    )


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((1, 0, 0), "1 patient"), ((3, 1, 0), "3 patients, 1 failed"),
        ((3, 1, 2), "3 patients, 1 failed, 2 done before"),
    ],
)  # fmt: skip
def test_counts_of_patients_are_written_in_words(counts, words):
    assert patients_in_words(*counts) == words


def test_the_last_line_names_what_to_open_with_a_count_and_the_whole_time(monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 173.2)
    line = last_line("report", Path("new.html"), "4 lesions, 2405 mm3", 100.0)
    assert line == "report: new.html (4 lesions, 2405 mm3), 73 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (73.2, "73 s"), (599.4, "599 s"),
        (599.6, "10 min"), (3570, "1 h 0 min"), (7502, "2 h 5 min"),
    ],
)  # fmt: skip
def test_a_duration_has_few_digits(seconds, text):
    assert duration(seconds) == text


def test_a_name_that_is_no_text_can_be_printed():
    code = (
        "from msseg_jax.cli.ending import run_command as r; r('p', lambda: print('\\udce9') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\udce9\n", b"")


def test_ctrl_c_ends_a_process_that_only_runs_this_command():
    """At exit, Python may crash after an interrupted compilation. So it must not get there."""
    code = """
import atexit
from msseg_jax.cli.ending import run_command

def work():
    raise KeyboardInterrupt

atexit.register(print, "exit handlers run")
print("status", run_command("p", work, owns_process=False))
run_command("p", work, owns_process=True)
print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "status 1\n")
    assert done.stderr == 2 * "p: Interrupted. Run the same command again to resume.\n"


def test_errors_in_the_code_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_command("program", raising(ZeroDivisionError()))
