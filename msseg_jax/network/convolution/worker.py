"""The process that times the forms. `measuring` starts it.

A compiler that crashes, or a kernel that reads beyond its memory, ends the process in which it
runs. So the forms are timed in a process of their own, and the training never runs a form for the
first time. The process reads its task from standard input, and writes a JSON object per line to
standard output: what it is about to try, and what it found.
"""

import json
import math
import sys
import threading
from typing import Any

import jax

from msseg_jax.network.convolution.choice import FORMS, card
from msseg_jax.network.convolution.form import PASSES, LayerShape
from msseg_jax.network.convolution.job import Job
from msseg_jax.network.convolution.timing import Event, time_forms


def main() -> None:
    """Carry out a task, {'card', 'jobs': [[job, names of its forms], ...], 'budget_s', 'threads'}.

    Raises:
      SystemExit: this process has another card than the one that needs the times.
    """
    task = json.load(sys.stdin)
    if card() != task["card"]:
        sys.exit(f"the forms are timed for {task['card']}, but this process has {card()}")
    jobs = {job_of(entry): [FORMS[name] for name in names] for entry, names in task["jobs"]}
    lock = threading.Lock()

    def tell(found: dict[str, Any]) -> None:
        with lock:
            print(json.dumps(found), flush=True)

    def announce(event: Event) -> None:
        tell({"event": event.what, "job": str(event.job), "form": event.form})

    timed = time_forms(
        list(jobs), jobs.__getitem__, task["budget_s"],
        threads=task["threads"], card_bytes=_card_bytes(), announce=announce,
    )  # fmt: skip
    for job, outcomes in timed:
        tell({"timed": str(job), "outcomes": outcomes})
    tell({"done": True})


def _card_bytes() -> float:
    """Return how much memory JAX may use; infinity if it does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit", 0)
    return limit if limit > 0 else math.inf  # some allocators have no limit, or say 0 or -1


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
