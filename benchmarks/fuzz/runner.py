"""Run many cases of a target in worker processes, which may crash or hang."""

import faulthandler
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType

from benchmarks.fuzz.case import (
    READ,
    REFUSED,
    Outcome,
    digest,
    generator,
    limit_memory,
    run_case,
)

HANG_S = 30.0  # a case that takes longer is killed
START_S = 120.0  # a worker that needs longer until its first case is killed
KEPT = 3  # inputs of each kind of finding that are kept

_CONTEXT = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang


@dataclass
class Summary:
    """The outcomes of all cases of a target."""

    target: str
    cases: int = 0
    read: int = 0
    refused: int = 0
    slowest: Outcome = field(default_factory=lambda: Outcome(-1, READ))
    largest: Outcome = field(default_factory=lambda: Outcome(-1, READ))
    findings: Counter[str] = field(default_factory=Counter)  # number of cases of each kind
    first: dict[str, int] = field(default_factory=dict)  # number of the first case of each kind

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.cases += 1
        self.read += outcome.kind == READ
        self.refused += outcome.kind == REFUSED
        self.slowest = max(self.slowest, outcome, key=lambda one: one.seconds)
        self.largest = max(self.largest, outcome, key=lambda one: one.peak_mb)
        if outcome.kind not in (READ, REFUSED):
            self.findings[outcome.kind] += 1
            self.first.setdefault(outcome.kind, outcome.number)


@dataclass(frozen=True)
class Fuzzing:
    """A fuzzing run of one target: its seed and its folder."""

    target: str
    seed: int
    folder: Path  # for the seeds and the findings of this target

    @property
    def seeds(self) -> Path:
        """The folder of the valid inputs."""
        return self.folder / "seeds"

    @property
    def module(self) -> ModuleType:
        """The module of the target."""
        return import_module(f"benchmarks.fuzz.targets.{self.target}")

    def make_seeds(self) -> None:
        """Write the valid inputs again."""
        shutil.rmtree(self.seeds, ignore_errors=True)
        self.seeds.mkdir(parents=True)
        self.module.make(self.seeds)

    def run(self, number: int, case: Path) -> Outcome:
        """Make and run one case in a folder, which is emptied before."""
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        module = self.module
        module.mutate(generator(self.seed, self.target, number), self.seeds, case)
        return run_case(module, number, case)

    def run_all(self, numbers: Iterable[int], workers: int, until: float) -> Summary:
        """Run cases, and keep the inputs of findings.

        Args:
          numbers: of the cases.
          workers: number of processes.
          until: time (`time.monotonic`) after which no case is started.
        """
        summary = Summary(self.target)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
            crew = [_Worker(self, Path(scratch) / str(k)) for k in range(workers)]
            try:
                for outcome, case in _outcomes(crew, iter(numbers), until):
                    summary.add(outcome)
                    if outcome.kind not in (READ, REFUSED):
                        self._keep(outcome, case, summary.findings[outcome.kind])
            finally:
                for worker in crew:
                    worker.stop()
        return summary

    def _keep(self, outcome: Outcome, case: Path, count: int) -> None:
        if count > KEPT:
            return
        place = self.folder / "findings" / f"{digest(outcome.kind)}-{outcome.number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        command = f"python -m benchmarks.fuzz --target={self.target} --seed={self.seed}"
        text = f"{outcome.kind}\n{command} --only={outcome.number}\n\n{outcome.text}\n"
        (place / "finding.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
        shutil.copytree(case, place / "case", symlinks=True, dirs_exist_ok=True)


def _outcomes(
    crew: list["_Worker"], numbers: Iterator[int], until: float
) -> Iterator[tuple[Outcome, Path]]:
    """Give the cases to the workers, and yield each outcome with the folder of its input."""
    busy = [worker for worker in crew if worker.give(next(numbers, None))]
    while busy:
        wait([worker.connection for worker in busy], timeout=1)
        for worker in list(busy):
            outcome = worker.outcome()
            if outcome is None:
                continue
            yield outcome, worker.case
            number = next(numbers, None) if time.monotonic() < until else None
            if not worker.give(number):
                busy.remove(worker)


class _Worker:
    """A process that runs one case after another. It is started again if it dies."""

    def __init__(self, fuzzing: Fuzzing, place: Path):
        self._fuzzing = fuzzing
        self._place = place
        self.case = place / "case"
        place.mkdir()
        self._start()

    def _start(self) -> None:
        self.connection, other = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work, args=(other, self._fuzzing, self._place), daemon=True
        )
        self._process.start()
        other.close()
        self._fresh = True

    def give(self, number: int | None) -> bool:
        """Give a case to the worker. Return False if there is none."""
        if number is None:
            return False
        self._number, self._since = number, time.monotonic()
        self.connection.send(number)
        return True

    def outcome(self) -> Outcome | None:
        """Return the outcome of the case, or None if it is still running."""
        if self.connection.poll():
            try:
                outcome: Outcome = self.connection.recv()
            except (EOFError, OSError):
                return self._failed("crash")
            self._fresh = False
            return outcome
        limit_s = HANG_S + START_S * self._fresh
        if time.monotonic() - self._since > limit_s:
            self._process.kill()
            return self._failed(f"hangs for {HANG_S:g} s")
        return None

    def _failed(self, what: str) -> Outcome:
        self.stop()
        seconds = time.monotonic() - self._since
        errors = (self._place / "stderr.txt").read_text(errors="backslashreplace")
        kind = f"{what} (exit code {self._process.exitcode})"
        self._start()
        return Outcome(self._number, kind, errors[-10_000:], seconds)

    def stop(self) -> None:
        """End the process."""
        self.connection.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()


def _work(connection: Connection, fuzzing: Fuzzing, place: Path) -> None:
    """Run the cases whose numbers arrive, and send their outcomes."""
    errors = open(place / "stderr.txt", "a")  # noqa: SIM115 - open until the process ends
    os.dup2(errors.fileno(), 2)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as above
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    _ = fuzzing.module  # import it before the limit, which depends on the memory so far
    limit_memory()
    try:
        while True:
            number = connection.recv()
            errors.truncate(0)
            connection.send(fuzzing.run(number, place / "case"))
    except (EOFError, BrokenPipeError):
        pass  # the runner has no more cases
