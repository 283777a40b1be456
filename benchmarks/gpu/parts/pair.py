"""One pair from its files to the mask, with cold and with warm caches."""

import subprocess
import sys
import time


def run(task):
    """Predict a phantom twice, each time in a new process, with an untrained network."""
    if not task.on_gpu() and not task.small:
        return
    from benchmarks.cpu import write_run
    from msseg_jax.simulate.phantom import write_phantoms

    spacing_mm = 4.0 if task.small else None
    write_phantoms(task.scratch / "pair", 1, seed=0, spacing_mm=spacing_mm)
    patient = task.scratch / "pair" / "phantom_001"
    write_run(task.scratch / "run", patient, task.configuration() if task.small else None)
    command = [
        sys.executable, "-m", "msseg_jax", "predict", f"--model={task.scratch / 'run'}",
        f"--dataset={task.scratch / 'pair'}", f"--output={task.scratch / 'masks'}", "--overwrite",
    ]  # fmt: skip
    for name in ("cold_s", "warm_s", "warm_again_s"):
        start = time.monotonic()
        subprocess.run(command, check=True)
        task.report(**{name: round(time.monotonic() - start, 2)})
