"""Measure where the time of `msseg predict` goes.

Usage: python -m benchmarks.phases [--repeats 5] -t1 T1 -t2 T2 --mask BRAIN -o OUTPUT
All flags except --repeats are those of `msseg predict`. Each repetition is a new process, so the
start-up is included. The figures are medians. Without a GPU, compilation does not include that of
the native convolution, which happens once per machine.
"""

import argparse
import functools
import importlib
import json
import statistics
import subprocess
import sys
import time

# What is timed, by the place where it is looked up. A call inside another one counts only once.
PLACES = {
    "msseg_jax.cli.predict.read_pair": "reading and checking files",
    "msseg_jax.cli.predict.load_networks": "loading the networks",
    "msseg_jax.data.preprocess.resample_by_each": "resampling and normalising",
    "msseg_jax.data.preprocess.apply": "resampling and normalising",
    "msseg_jax.inference.ensemble.assess": "checks of the pair",
    "msseg_jax.inference.predictor.segment_volume": "network",
    "msseg_jax.data.preprocess.Resampled.to_file_grid": "resampling to the grid of the files",
    "msseg_jax.cli.predict.write_pair": "writing",
}
COMPILING = "compilation"  # is subtracted from the phase in which it happens
CHILD = "--child"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="number of processes; default: 5")
    flags, arguments = parser.parse_known_args()
    runs = []
    for _ in range(flags.repeats):
        command = [sys.executable, "-m", "benchmarks.phases", CHILD, str(time.monotonic())]
        done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.returncode)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    for name in runs[0]:
        print(f"{statistics.median(run[name] for run in runs):7.2f} s  {name}")


def child(start: str, *arguments: str) -> None:
    """Predict in this process, and print the seconds of each phase as JSON.

    Args:
      start: time on the monotonic clock at which the process was started, s.
      arguments: those of `msseg predict`.
    """
    seconds = dict.fromkeys(("start-up and imports", *PLACES.values(), COMPILING), 0.0)
    from msseg_jax.cli.main import main as msseg

    for place, phase in PLACES.items():
        _replace(place, lambda function, phase=phase: _timed(function, phase, seconds))
    seconds["start-up and imports"] = time.monotonic() - float(start)
    import jax

    jax.monitoring.register_event_duration_secs_listener(
        functools.partial(_note_compilation, seconds)
    )
    if status := msseg(["predict", *arguments]):
        sys.exit(status)
    seconds["whole"] = time.monotonic() - float(start)
    seconds["everything else"] = 2 * seconds["whole"] - sum(seconds.values())
    print(json.dumps(seconds))


def _replace(place: str, wrap) -> None:
    """Replace what a dotted name refers to, a function of a module or of a class in one."""
    owner, _, name = place.rpartition(".")
    try:
        holder = importlib.import_module(owner)
    except ModuleNotFoundError:
        module, _, of = owner.rpartition(".")
        holder = getattr(importlib.import_module(module), of)
    setattr(holder, name, wrap(getattr(holder, name)))


def _timed(function, phase: str, seconds: dict[str, float]):
    """Return a function that adds its time to a phase, without that of phases inside it."""

    @functools.wraps(function)
    def run(*arguments, **named):
        start, before = time.monotonic(), sum(seconds.values())
        result = function(*arguments, **named)
        inside = sum(seconds.values()) - before
        seconds[phase] += time.monotonic() - start - inside
        return result

    return run


def _note_compilation(seconds: dict[str, float], event: str, duration_s: float, **_) -> None:
    if event.startswith("/jax/core/compile/"):
        seconds[COMPILING] += duration_s


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(*sys.argv[2:])
    else:
        main()
