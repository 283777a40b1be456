"""The ten kernels of a training step that take the longest."""

import gzip
import json
import shutil
from collections import Counter
from functools import partial

from benchmarks.train import TRACED_STEPS

LONGEST = 10


def run(task):
    """Trace a few steps, and report the longest kernels."""
    on_gpu = task.on_gpu()
    if not on_gpu and not task.small:
        return
    import jax

    from benchmarks.data import training_patients
    from benchmarks.train import OurTraining

    config = task.configuration()
    device = jax.local_devices()[0]
    with training_patients(config, None, 2, task.scratch / "patients_cache") as data:
        training = partial(OurTraining, config, data, device)(task.argument, "device")
        training.trace(task.scratch / "trace")
    (trace,) = (task.scratch / "trace").rglob("*.trace.json.gz")
    shutil.copy(trace, task.folder / "trace.json.gz")
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        kernels, total_ms = longest_kernels(json.load(file), on_gpu)
    task.report(kernels=kernels, total_ms=total_ms, dtype=task.argument)


def longest_kernels(trace: dict, on_gpu: bool) -> tuple[list[dict], float]:
    """Return the longest kernels of a step, and the milliseconds of all kernels of a step.

    Args:
      trace: as `jax.profiler` writes it, in the format of Chrome.
      on_gpu: count the streams of the GPUs; otherwise everything.
    """
    events = trace["traceEvents"]
    names = {
        e["pid"]: e["args"]["name"]
        for e in events if e.get("ph") == "M" and e.get("name") == "process_name"
    }  # fmt: skip
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"]
        for e in events if e.get("ph") == "M" and e.get("name") == "thread_name"
    }  # fmt: skip
    spent: Counter = Counter()
    calls: Counter = Counter()
    for event in events:
        if event.get("ph") != "X":
            continue
        place = event["pid"], event["tid"]
        # Besides the streams, the trace has lines that repeat the same time by module and by step.
        if on_gpu and not (
            "GPU" in names.get(event["pid"], "") and "Stream" in threads.get(place, "")
        ):
            continue
        spent[event["name"]] += event.get("dur", 0) / 1e3 / TRACED_STEPS
        calls[event["name"]] += 1
    kernels = [
        {"kernel": name[:120], "ms": round(ms, 3), "calls": calls[name] / TRACED_STEPS}
        for name, ms in spent.most_common(LONGEST)
    ]
    return kernels, round(sum(spent.values()), 2)
