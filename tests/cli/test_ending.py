"""Test how a command ends: its exit status, and its message on standard error."""

import contextlib
import io

import pytest

from msseg_jax.cli.ending import run_command, status_after
from msseg_jax.system.errors import InputError


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
    assert status_after({}, 3, "scans") == 0
    assert capsys.readouterr().err == ""
    assert status_after({"anna": "no head", "bea": "no FLAIR"}, 3, "scans") == 1
    assert capsys.readouterr().err == ("2 of 3 scans failed:\n  anna: no head\n  bea: no FLAIR\n")


def test_errors_in_the_code_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_command("program", raising(ZeroDivisionError()))
