"""The time of a training step with the loader, its memory, and the time until the first step."""

import argparse
import statistics
import time
from functools import partial

# JAX cannot reset its peak, so the second one is the larger of both places.
PEAKS = {"device": "device_peak_gib", "host": "overall_peak_gib"}


def run(task):
    """Time steps with patches cut on the device, and then on the host."""
    if not task.on_gpu() and not task.small:
        return
    from benchmarks.data import training_patients
    from benchmarks.train import OurTraining, limit_s
    from msseg_jax.network.convolution import choice
    from msseg_jax.system.machine import keep_freed_memory

    keep_freed_memory()
    import jax

    config = task.configuration()
    device = jax.local_devices()[0]
    steps, repeats = (2, 2) if task.small else (20, 3)
    flags = argparse.Namespace(bandwidth_gb_s=None, peak_tflop_s=None)
    task.report(
        dtype=task.argument, batch_size=config.train.batch_size, known=len(choice.known()),
        limit_ms=milliseconds(limit_s(config, device, task.argument, flags)),
    )  # fmt: skip
    with training_patients(config, None, 2, task.scratch / "patients_cache") as data:
        train = partial(OurTraining, config, data, device, task.argument)
        for place in PEAKS:
            start = time.monotonic()
            training = train(place)
            first_s = training.first_s
            task.report(**{f"{place}_first_step_s": round(first_s, 1)})
            seconds = [training.run(steps) / steps for _ in range(repeats)]
            stats = device.memory_stats() or {}
            task.report(**{
                f"{place}_step_ms": milliseconds(statistics.median(seconds)),
                f"{place}_waited": training.waited_share,
                PEAKS[place]: stats.get("peak_bytes_in_use", 0) / 2**30 or None,
            })  # fmt: skip
            del training
            if task.left_s < 1.2 * (time.monotonic() - start):
                break
        if task.left_s > first_s + 5:
            # Compiled programs are in the cache now. This is what a second training waits for.
            jax.clear_caches()
            task.report(first_step_again_s=round(train("device").first_s, 1))


def milliseconds(seconds):
    """Return milliseconds, or None."""
    return None if seconds is None else round(seconds * 1e3, 2)
