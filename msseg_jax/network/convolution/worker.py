"""The process that times the forms. `measuring` starts it.

A compiler that crashes, or a kernel that reads beyond its memory, ends the process in which it
runs. So the forms are timed in a process of their own, and the training never runs a form for the
first time. The process reads its task from standard input, and writes a JSON object per line to
standard output: what it is about to try, and what it found.
"""

import json
import sys
import threading
from typing import Any

from msseg_jax.network.convolution.candidates import candidates
from msseg_jax.network.convolution.choice import FORMS
from msseg_jax.network.convolution.form import PASSES, LayerShape
from msseg_jax.network.convolution.timing import Event, Job, time_forms
from msseg_jax.system.machine import processors


def main() -> None:
    """Time the jobs of a task, {'jobs', 'left_out', 'budget_s'}."""
    task = json.load(sys.stdin)
    left_out = {(job, form) for job, form in task["left_out"]}
    lock = threading.Lock()

    def tell(found: dict[str, Any]) -> None:
        with lock:
            print(json.dumps(found), flush=True)

    def announce(event: Event) -> None:
        tell({"event": event.what, "job": str(event.job), "form": event.form})

    timed = time_forms(
        [job_of(entry) for entry in task["jobs"]],
        lambda job: [
            FORMS[form.name]
            for form in candidates(job.layer.kernel_size)
            if (str(job), form.name) not in left_out
        ],
        task["budget_s"],
        threads=processors(),
        announce=announce,
    )
    for job, outcomes in timed:
        tell({"timed": str(job), "outcomes": outcomes})
    tell({"done": True})


def entry_of(job: Job) -> list:
    """Return a job as JSON can store it."""
    return [*job.layer, job.which]


def job_of(entry: list) -> Job:
    """Return the job of an entry."""
    batch, sides, channels, features, size, dtype, which = entry
    depth, height, width = sides
    layer = LayerShape(batch, (depth, height, width), tuple(channels), features, size, dtype)
    return Job(layer, PASSES[PASSES.index(which)])


if __name__ == "__main__":
    main()
    sys.stdout.flush()
