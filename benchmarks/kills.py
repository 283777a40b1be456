"""Kill a training with SIGKILL at random moments, and compare its end with an undisturbed one.

Usage: python -m benchmarks.kills FOLDER [--kills 100] [--steps 3000] [--seed 0]
Start it again with the same flags to resume it. The network is that of the paper; the patients are
four phantoms with voxels of 4 mm, so that a process needs a few seconds up to its first step.

One training runs undisturbed. The other one is killed, and continued with the same command, until
it was killed as often as requested. Then it runs to its end. The moments are drawn with the seed:

- The first tenth lies in the checks and in the filling of the cache.
- The last tenth lies after the last step, while held-out patients are predicted and scored.
- Of the others, a third lies at any time of a process, a third within the writing of a checkpoint,
  a sixth within a validation, and a sixth between steps.

At the end, these must be equal, bit for bit: all parameters, running statistics and the state of
the optimiser in the last and the best checkpoint; all lines of the log, without the times; the
split, the preprocessing, and the predictions. No temporary file may be left.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.watched_training import PHASES, Phase

EVERY_STEPS = 10  # steps between checkpoints
TIMES = {"patches_per_s", "data_wait_share", "time_left_s"}  # of a line of the log; never equal
POLL_S = 0.001
SETTINGS = (
    "--config=msseg2", "--config.data.patch_size=16", "--config.data.spacing_mm=4",
    "--config.data.validation_patients=1", "--config.data.patches_per_patient=16",
    "--config.train.batch_size=2", "--config.train.epochs=1000000",
    "--config.train.learning_rate_decay=1.0",  # so that late steps still change the parameters
    f"--config.train.checkpoint_every_steps={EVERY_STEPS}",
    "--config.train.validate_every_steps=50", "--config.train.log_every_steps=1",
    "--config.predict.overlap=2",
)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the patients, both runs and the record")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    bench = Bench(flags.folder.resolve(), flags.kills, flags.steps, flags.seed)
    bench.make_patients()
    bench.train_undisturbed()
    while len(bench.kills) < flags.kills:
        bench.kill_once()
    bench.finish()
    bench.report()
    problems = differences(bench.whole, bench.killed)
    print("\n".join(problems) or "everything is equal, bit for bit")
    sys.exit(bool(problems))


class Bench:
    """The folder of the experiment: patients, both trainings, and the record of the kills."""

    def __init__(self, folder: Path, count: int, steps: int, seed: int):
        self.folder, self.count, self.steps, self.seed = folder, count, steps, seed
        self.patients, self.whole, self.killed = (
            folder / name for name in ("patients", "whole", "killed")
        )
        self._record = folder / "kills.jsonl"
        self._phase_file = folder / "phase"
        folder.mkdir(parents=True, exist_ok=True)
        self._phase_file.write_bytes(b"\0")
        self._phase = Phase(self._phase_file)
        lines = (
            self._record.read_text(encoding="utf-8").splitlines() if self._record.is_file() else []
        )
        self.kills = [json.loads(line) for line in lines]

    def make_patients(self):
        """Make the phantoms, once."""
        if not self.patients.is_dir():
            flags = [f"--output={self.patients}", "--patients=4", "--spacing_mm=4"]
            command = [sys.executable, "-m", "msseg_jax", "phantom", *flags]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _start(self, workdir: Path) -> subprocess.Popen:
        self._phase.set("starting")
        environment = {
            **os.environ,
            # Without these, each process would compile for several seconds.
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [
            sys.executable, "-m", "benchmarks.watched_training", str(self._phase_file), *SETTINGS,
            f"--config.data.root={self.patients}", f"--workdir={workdir}",
            f"--config.train.max_steps={self.steps}",
        ]  # fmt: skip
        with (self.folder / f"{workdir.name}.txt").open("a") as output:
            return subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def train_undisturbed(self):
        """Train without a kill, once, and measure how long each phase lasts."""
        durations = self.folder / "durations.json"
        if not durations.is_file():
            # The first process compiles. The durations are those of a second one.
            self._complete(self.folder / "first", stop_after="stepping")
            measured = self._complete(self.whole)
            durations.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        self.durations_s = json.loads(durations.read_text(encoding="utf-8"))

    def _complete(self, workdir: Path, stop_after: str | None = None) -> dict[str, float]:
        """Run a process to its end, and return the median duration of each phase in seconds.

        Args:
          stop_after: kill the process when it first leaves this phase.
        """
        spans: dict[str, list[float]] = {name: [] for name in PHASES}
        process = self._start(workdir)
        phase, since_s = self._phase.get(), time.monotonic()
        while process.poll() is None:
            time.sleep(POLL_S)
            if (now := self._phase.get()) != phase:
                spans[phase].append(time.monotonic() - since_s)
                if phase == stop_after:
                    process.kill()
                phase, since_s = now, time.monotonic()
        if process.returncode and stop_after is None:
            sys.exit(f"the training in {workdir} failed; see its output in {self.folder}")
        return {name: statistics.median(times) for name, times in spans.items() if times}

    def kill_once(self):
        """Start the training, kill it at the next moment, and note the phase and the step."""
        number = len(self.kills)
        random = np.random.default_rng((self.seed, number))
        target = self._target(number, random)
        before = newest_step(self.killed)
        process = self._start(self.killed)
        started_s = time.monotonic()
        try:
            self._wait_for(target, random, process)
        finally:
            ended, phase = process.poll(), self._phase.get()
            process.kill()
            process.wait()
        if ended == 0 and newest_step(self.killed) == self.steps:
            return  # it ended before its moment; all further kills fall into the scoring
        if ended is not None:
            sys.exit(f"kill {number}: the process failed; see its output in {self.folder}")
        kill = {
            "kill": number, "target": target, "phase": phase, "before": before,
            "after": newest_step(self.killed), "lived_s": round(time.monotonic() - started_s, 3),
            "left": len(temporary_files(self.killed)),
        }  # fmt: skip
        self.kills.append(kill)
        with self._record.open("a") as record:
            record.write(json.dumps(kill) + "\n")
        print(kill, flush=True)

    def _target(self, number: int, random: np.random.Generator) -> str:
        """Return the phase in which a kill shall fall, or 'any time'."""
        tenth = self.count // 10
        if number < tenth:
            return ("checking", "caching")[number % 2]
        if number >= self.count - tenth or newest_step(self.killed) == self.steps:
            return "scoring"
        shares = {"any time": 1 / 3, "storing": 1 / 3, "validating": 1 / 6, "stepping": 1 / 6}
        return str(random.choice(list(shares), p=list(shares.values())))

    def _wait_for(self, target: str, random: np.random.Generator, process: subprocess.Popen):
        """Wait until the moment of a kill, or until the process ends."""
        if target == "any time":
            to_first_step = ("starting", "checking", "caching", "compiling")
            life_s = sum(self.durations_s.get(name, 0) for name in to_first_step) + 1
            sleep_until(time.monotonic() + random.uniform(0, life_s), process)
            return
        # With several checkpoints in between, the training also advances.
        occurrences = {
            "storing": int(random.integers(1, 4)),
            "stepping": int(random.integers(1, 4)),
        }
        for occurrence in range(occurrences.get(target, 1)):
            if occurrence:
                self._poll(lambda: self._phase.get() != target, process)
            self._poll(lambda: self._phase.get() == target, process)
        span_s = self.durations_s[target]
        sleep_until(time.monotonic() + random.uniform(0, span_s), process)

    def _poll(self, reached, process: subprocess.Popen):
        while not reached() and process.poll() is None:
            time.sleep(POLL_S)

    def finish(self):
        """Run the training that was killed to its end."""
        self._complete(self.killed)

    def report(self):
        """Print how many kills fell into each phase, and how the training advanced."""
        phases = Counter(kill["phase"] for kill in self.kills)
        gained = [kill["after"] - kill["before"] for kill in self.kills]
        print(f"{len(self.kills)} kills, {self.steps} steps, seed {self.seed}")
        print("phase       kills  duration of the phase without a kill (median)")
        for name in PHASES:
            duration_s = self.durations_s.get(name)
            print(f"{name:<12}{phases[name]:>5}  {duration_s and round(duration_s, 3)} s")
        print(
            f"steps that were stored between kills: 0 after {gained.count(0)} kills, "
            f"{min(gained)} to {max(gained)}, {sum(gained)} in all"
        )
        with_left = sum(kill["left"] > 0 for kill in self.kills)
        print(f"temporary files were left by {with_left} kills")
        lived_s = [kill["lived_s"] for kill in self.kills]
        print(f"life of a process: {min(lived_s):.1f} to {max(lived_s):.1f} s")
        output = (self.folder / "killed.txt").read_text(encoding="utf-8")
        for text in ("Traceback", "cannot be read", "WARNING", "ERROR"):
            print(f"lines with {text!r} in the output of all processes: {output.count(text)}")


def sleep_until(moment_s: float, process: subprocess.Popen):
    """Wait until a moment of the monotonic clock, or until the process ends."""
    while time.monotonic() < moment_s and process.poll() is None:
        time.sleep(min(POLL_S, max(0, moment_s - time.monotonic())))


def newest_step(workdir: Path) -> int:
    """Return the step of the newest complete checkpoint; 0 if there is none."""
    steps = (workdir / "checkpoints" / "last").glob("*")
    return max((int(path.name) for path in steps if path.name.isdigit()), default=0)


def temporary_files(workdir: Path) -> list[Path]:
    """Return the files and folders with a temporary name."""
    return [p for p in workdir.rglob("*") if p.name.startswith(".partial") or "-tmp" in p.name]


def differences(one: Path, other: Path) -> list[str]:
    """Return in what two complete runs differ; times are not compared."""
    problems = [f"left behind: {path}" for path in temporary_files(other)]
    for kind in ("last", "best"):
        found = [
            sorted(p.name for p in (run / "checkpoints" / kind).iterdir()) for run in (one, other)
        ]
        if found[0] != found[1]:
            problems.append(f"checkpoints/{kind}: {found[0]} and {found[1]}")
            continue
        for step in found[0]:
            problems += _different_arrays(one, other, f"checkpoints/{kind}/{step}")
    ours, theirs = _log(one), _log(other)
    problems += [
        f"log.jsonl, line {number}: {line} and {other_line}"
        for number, (line, other_line) in enumerate(zip(ours, theirs, strict=False), start=1)
        if line != other_line
    ]
    if len(ours) != len(theirs):
        problems.append(f"log.jsonl has {len(ours)} and {len(theirs)} lines")
    same = ["split.json", "preprocessing.json", "evaluation/evaluation.json"]
    same += [str(path.relative_to(one)) for path in one.glob("pr*s/*.nii.gz")]
    problems += [
        f"{name} differs"
        for name in same
        if (one / name).read_bytes() != (other / name).read_bytes()
    ]
    return problems


def _different_arrays(one: Path, other: Path, checkpoint: str) -> list[str]:
    import jax
    import orbax.checkpoint as ocp

    problems = []
    restore = ocp.StandardCheckpointer().restore
    for item in ("model", "optimiser"):
        trees = [restore(run / checkpoint / item) for run in (one, other)]
        for (place, ours), theirs in zip(
            jax.tree.leaves_with_path(trees[0]), jax.tree.leaves(trees[1]), strict=True
        ):
            if np.asarray(ours).tobytes() != np.asarray(theirs).tobytes():
                problems.append(f"{checkpoint}/{item}{jax.tree_util.keystr(place)} differs")
    progress = [
        (run / checkpoint / "progress" / "metadata").read_text(encoding="utf-8")
        for run in (one, other)
    ]
    if json.loads(progress[0]) != json.loads(progress[1]):
        problems.append(f"{checkpoint}/progress: {progress[0]} and {progress[1]}")
    return problems


def _log(run: Path) -> list[dict]:
    """Return the lines of the log, without times."""
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


if __name__ == "__main__":
    main()
