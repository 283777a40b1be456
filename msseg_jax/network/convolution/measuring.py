"""Time the forms of the layers that were not timed before, in a process of its own (`worker`)."""

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from msseg_jax.network.convolution import choice, worker
from msseg_jax.network.convolution.candidates import candidates
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.system.machine import processors

BUDGET_S = 120.0  # longest time for all layers. A machine needs it once
START_S = 60.0  # for the start of the process, in addition
MOST_STARTS = 8  # a process that dies is started again
COMMAND = (sys.executable, "-P", "-m", worker.__name__)  # -P: not from the current folder

Suspects = list[tuple[str, str]]  # jobs and their forms

logger = logging.getLogger(__name__)


def missing(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs with forms that were not tried on this card, each once, largest first."""
    jobs = [job for job in dict.fromkeys(jobs) if _untried(job)]
    return sorted(jobs, key=lambda job: job.size, reverse=True)


def _untried(job: Job) -> list[str]:
    """Return the forms to compare with the plain one; none if the plain one cannot be used."""
    tried = {o.form: o.seconds for o in choice.known().get(str(job), ())}
    if tried.get(PLAIN.name, 0) is None:
        return []
    return [form.name for form in candidates(job.layer.kernel_size) if form.name not in tried]


def time_missing(
    jobs: Sequence[Job],
    budget_s: float = BUDGET_S,
    *,
    start_s: float = START_S,
    command: Sequence[str] = COMMAND,
) -> None:
    """Time the forms of these jobs that were not tried before, and keep the results.

    Whatever goes wrong, this raises no error: the plain form is used for what was not timed. If the
    process dies, a form that it tried is to blame, and is never tried again. If it tried several,
    the next process begins with their jobs, and tries one form at a time.

    Args:
      budget_s: seconds for the timings.
      start_s: seconds for the start of the process, in addition.
      command: starts the process that times.
    """
    deadline = time.monotonic() + budget_s
    suspects: Suspects = []
    for _ in range(MOST_STARTS):
        suspected = {job for job, _ in suspects}
        todo = sorted(missing(jobs), key=lambda job: str(job) not in suspected)
        left_s = deadline - time.monotonic()
        if not todo or left_s <= 0:
            return
        task = {
            "card": choice.card(),
            "jobs": [[worker.entry_of(job), _untried(job)] for job in todo],
            "budget_s": left_s,
            "threads": 1 if suspects else processors(),
        }
        try:
            suspects = _run(command, task, left_s + start_s)
        except Exception as error:  # of any type: the training does not need these timings
            logger.debug("the convolutions could not be timed: %s", error)
            return
        if not suspects:
            return
        if len(suspects) == 1:
            [(job, form)] = suspects
            logger.debug("%s, %s: dropped, because its process ended", job, form)
            choice.add({job: [Outcome(form, None, "its process ended")]})
            suspects = []


def _run(command: Sequence[str], task: dict[str, Any], timeout_s: float) -> Suspects:
    """Run the process, and keep what it finds.

    Returns:
      The forms, with their jobs, that it tried when it died; none if it ended as it should or if
      its time was used up.
    """
    # The training holds most of the memory already, so take only what is needed.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                   "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # fmt: skip
    if compiled := jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # no stub
        environment["JAX_COMPILATION_CACHE_DIR"] = compiled
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            encoding="utf-8", errors="replace",
            env=environment,
        ) as process,
    ):  # fmt: skip
        lines: queue.Queue[str | None] = queue.Queue()  # of its output; None at the end
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            _tell(process, task)
            suspects = _follow(lines, timeout_s)
        finally:
            process.kill()
            reader.join()
        errors.seek(0)
        tail = errors.read()[-2000:].decode(errors="replace")
        logger.debug("the process that timed ended with %s: %s", process.wait(), tail)
    return suspects


def _read(output: Iterable[str], lines: "queue.Queue[str | None]") -> None:
    for line in output:
        lines.put(line)
    lines.put(None)


def _tell(process: "subprocess.Popen[str]", task: dict[str, Any]) -> None:
    """Write the task to the process. If it has ended already, `_follow` will notice."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.write(json.dumps(task))
    with contextlib.suppress(OSError):
        process.stdin.close()


def _follow(lines: "queue.Queue[str | None]", timeout_s: float) -> Suspects:
    """Read what the process finds, until it ends or the time is used up. See `_run`."""
    deadline = time.monotonic() + timeout_s
    active: dict[tuple[str, str], str] = {}  # what happens to a form of a job
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:  # compilation may be slow, but a kernel that does not end is a suspect
            return [key for key, what in active.items() if what == "running"]
        if line is None:
            return list(active)
        try:
            event = json.loads(line)
        except ValueError:  # a library has printed something
            continue
        if not isinstance(event, dict):  # as well
            continue
        if "done" in event:
            return []
        if "timed" in event:
            _keep(event["timed"], event["outcomes"])
        elif event["event"] in ("compiling", "running"):
            active[event["job"], event["form"]] = event["event"]
        else:
            active.pop((event["job"], event["form"]), None)


def _keep(job: str, outcomes: list) -> None:
    found = [Outcome(*outcome) for outcome in outcomes]
    for outcome in found:
        if outcome.seconds is None:
            logger.debug("%s, %s: dropped: %s", job, outcome.form, outcome.reason)
    choice.add({job: found})
