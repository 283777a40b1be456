"""The fuzzer finds what it looks for, and a small part of it passes for each target."""

import os
import time
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.fuzz.__main__ import TARGETS
from benchmarks.fuzz.case import READ, REFUSED, generator, run_case
from benchmarks.fuzz.runner import Fuzzing
from msseg_jax.system.errors import InputError

CASES = {"cache": 40, "checkpoint": 40, "dicom": 20, "evaluate": 100, "run": 40}  # the slow ones


# TensorStore reports this when orbax has given up a damaged checkpoint.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_correctly_or_refused(name, tmp_path):
    fuzzing = Fuzzing(name, seed=1, folder=tmp_path / name)
    fuzzing.make_seeds()
    outcomes = [fuzzing.run(number, tmp_path / "case") for number in range(CASES.get(name, 200))]
    assert [one for one in outcomes if one.kind not in (READ, REFUSED)] == []
    kinds = {one.kind for one in outcomes}
    assert kinds == {READ, REFUSED}  # both kinds occur, so the damages reach deep


def test_a_case_can_be_repeated(tmp_path):
    fuzzing = Fuzzing("json", seed=3, folder=tmp_path)
    fuzzing.make_seeds()

    def content(number):
        fuzzing.run(number, tmp_path / "case")
        places = (tmp_path / "case").iterdir()  # some mutations put a folder in place of a file
        return {path.name: path.read_bytes() if path.is_file() else None for path in places}

    first = [content(number) for number in range(20)]
    assert [content(number) for number in reversed(range(20))] == first[::-1]
    assert len({str(one) for one in first}) > 10


def _fail_in_the_middle(case: Path) -> None:
    raise KeyError("no such key")


def _refuse_because_of_memory(case: Path) -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise InputError("is damaged") from error


def _refuse_at_length(case: Path) -> None:
    raise InputError("x" * 10_000)


def _take_memory(case: Path) -> None:
    with mmap(-1, 150 * 10**6) as memory:  # malloc may reuse memory that is counted already
        memory.write(b"x" * len(memory))


@pytest.mark.parametrize(
    ("use", "kind"),
    [
        (_fail_in_the_middle, "KeyError: test_fuzz.py:"),
        (_refuse_because_of_memory, "memory ran out: test_fuzz.py:"),
        (_refuse_at_length, "message is too long"),
        (_take_memory, "needs more than 100 MB"),
    ],
)
def test_a_finding_is_named(use, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.fuzz.case.MOST_MB", 100.0)
    if use is _take_memory and not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system has no /proc, so memory is not measured")
    outcome = run_case(SimpleNamespace(use=use), 5, tmp_path)
    assert outcome.number == 5
    assert outcome.kind.startswith(kind)


def test_crashes_and_hangs_are_found_and_the_other_cases_run(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.fuzz.runner.HANG_S", 1.0)
    monkeypatch.setattr("benchmarks.fuzz.runner.START_S", 60.0)
    fuzzing = _Broken("json", 0, tmp_path)
    summary = fuzzing.run_all(range(6), workers=1, until=float("inf"))
    assert (summary.cases, summary.read) == (6, 4)
    assert summary.first == {"crash (exit code -6)": 1, "hangs for 1 s (exit code -9)": 3}
    (kept,) = (tmp_path / "findings").glob("*-1")
    assert "--target=json --seed=0 --only=1" in (kept / "finding.txt").read_text()
    assert (kept / "case" / "input").read_text() == "1"


class _Broken(Fuzzing):
    """Case 1 crashes, and case 3 hangs."""

    @property
    def module(self):
        return SimpleNamespace(mutate=_mutate, use=_use)


def _mutate(rng, seeds, case):
    drawn = rng.random()
    number = next(k for k in range(6) if generator(0, "json", k).random() == drawn)
    (case / "input").write_text(str(number))


def _use(case):
    number = (case / "input").read_text()
    if number == "1":
        os.abort()
    if number == "3":
        time.sleep(100)
