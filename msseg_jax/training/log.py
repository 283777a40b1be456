"""The log of a training: text lines, JSON lines for plots, a progress bar and event files."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

import jax
import numpy as np
from tqdm import tqdm

from msseg_jax.evaluation.cohort import format_number
from msseg_jax.report.snapshot import Snapshot
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.training.step import Metrics
from msseg_jax.training.tensorboard import EventFile, Line

Batch = TypeVar("Batch")

# Metrics of which a line has the mean over its steps, and their names in the text.
LOSSES = {"loss": "loss", "decoder_loss": "decoders"}


@dataclass
class Clock:
    """Times of the steps since the last line of the log."""

    start: float = field(default_factory=time.perf_counter)
    waited_s: float = 0.0  # waiting time for batches
    steps: int = 0

    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.start


class TrainingLog:
    """Collects the metrics of the steps and writes one line per interval.

    Metrics stay on the device until a line is written. At most one step is in flight, so that the
    measured times are those of the computation, not of its dispatch.
    """

    def __init__(
        self,
        path: Path | None,
        batch_size: int,
        total_steps: int,
        learning_rate: Callable[[int], Any],
        events: EventFile | None = None,
    ):
        """Create a log. It writes nothing before `begin`.

        Args:
          path: path of log.jsonl, or None if this process does not write.
          batch_size: patches per global batch, over all processes.
          total_steps: number of steps of the run.
          learning_rate: maps the number of steps done to the next step's learning rate, a scalar.
          events: event file for TensorBoard, or None to write none.
        """
        self._path = path
        self._batch_size = batch_size
        self._total_steps = total_steps
        self._learning_rate = learning_rate
        self._events = events
        self._file: TextIO | None = None
        self._bar: tqdm | None = None
        self._clock = Clock()
        self._pending: list[tuple[int, Metrics]] = []  # steps not yet written
        # Number of the first step of this process, and the time when it was done.
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        with contextlib.suppress(OSError):  # `_reporting` has already reported it
            if self._file is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            if self._events is not None:
                self._events.close()

    def begin(self, first_step: int, validated: bool = True) -> None:
        """Start after `first_step` steps, and remove the lines of later steps from the file.

        Args:
          validated: False if that step still has to be validated.
        """
        self.restart_clock()
        if self._path is None:
            return
        with self._reporting():
            if self._path.is_file():
                lines = self._path.read_bytes().splitlines(keepends=True)
                kept = b"".join(line for line in lines if _stays(line, first_step, validated))
                write_beside(self._path, lambda path: path.write_bytes(kept))
            self._file = self._path.open("a", buffering=1, encoding="utf-8")  # line-buffered
            if self._events is not None:
                self._events.begin(first_step)
        self._bar = tqdm(
            total=self._total_steps, initial=first_step, unit="step", disable=None, leave=False
        )
        if first_step and not (validated and first_step == self._total_steps):
            self.say(f"continuing after step {first_step}")
        elif first_step:
            self.say(f"nothing to do: all {first_step} steps of the run are done")

    def say(self, line: str) -> None:
        """Print a line above the progress bar. It is not written to any file."""
        if self._path is not None:
            tqdm.write(line)

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the same batches, and measure the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self._clock.waited_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def add(self, step: int, metrics: Metrics) -> None:
        """Record the metrics of a step, which may still be running."""
        if self._first is None:
            jax.block_until_ready(metrics)
            self.say(f"first step, with compilation: {self._clock.elapsed_s():.1f} s")
            self.restart_clock()  # rates exclude the compilation
            self._first = step, self._clock.start
        else:
            if self._pending:
                jax.block_until_ready(self._pending[-1])
            self._clock.steps += 1
        self._pending.append((step, metrics))
        if self._bar is not None:
            self._bar.update()

    def write(self) -> None:
        """Write one line for the steps since the last line.

        Raises:
          InputError: the loss or the gradient of a step is not finite, or the disk is full.
        """
        if not self._pending:
            return
        metrics: list[tuple[int, dict[str, np.ndarray]]] = jax.device_get(self._pending)
        _require_finite(metrics)
        step, last = metrics[-1]
        speed = self._speed(step)
        rate = float(self._learning_rate(step - 1))
        losses = {
            name: sum(float(values[name]) for _, values in metrics) / len(metrics)
            for name in LOSSES
            if name in last
        }
        gradient_norm = float(last["gradient_norm"])
        line = {"step": step, "learning_rate": rate, **losses, "gradient_norm": gradient_norm}
        self._write(line | speed)
        shown = "  ".join(f"{LOSSES[name]} {value:.4f}" for name, value in losses.items())
        text = (
            f"step {step}/{self._total_steps}  rate {rate:.6f}  {shown}  "
            f"gradient {gradient_norm:.4f}"
        )
        if speed:
            text += (
                f"  {speed['patches_per_s']:.2f} patches/s  "
                f"data wait {100 * speed['data_wait_share']:.0f} %  "
                f"left {_duration(speed['time_left_s'])}"
            )
        self.say(text)
        self._pending.clear()
        self.restart_clock()

    def _speed(self, step: int) -> dict[str, float]:
        """Return the speed of the run after `step` steps; empty if only the first step is done."""
        if self._first is None or not self._clock.steps:
            return {}
        elapsed_s = self._clock.elapsed_s()
        first_step, first_time = self._first
        # The mean since the first step, including validations and checkpoints.
        step_s = (self._clock.start + elapsed_s - first_time) / (step - first_step)
        return {
            "patches_per_s": self._batch_size * self._clock.steps / elapsed_s,
            "data_wait_share": self._clock.waited_s / elapsed_s,
            "time_left_s": (self._total_steps - step) * step_s,
        }

    def write_validation(
        self, step: int, scores: Mapping[str, float], snapshot: Snapshot | None
    ) -> None:
        """Write the scores of the held-out patients, and the picture of one of them.

        Raises:
          InputError: the disk is full.
        """
        self._write({"step": step, "validation": scores})
        self.say(
            f"step {step}/{self._total_steps}  validation: "
            f"Dice {format_number(scores['dice'], 3)}, "
            f"new lesions detected {scores['detected']}, missed {scores['missed']}, "
            f"false {scores['false']}"
        )
        if self._events is not None and snapshot is not None:
            with self._reporting():
                self._events.write_picture(step, snapshot)

    def _write(self, line: Line) -> None:
        with self._reporting():
            if self._file is not None:
                self._file.write(json.dumps(_without_nan(line)) + "\n")
            if self._events is not None:
                self._events.write(line)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn an error of the system in the block into an InputError that names the files."""
        try:
            yield
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> InputError:
        return InputError(
            f"{self._path} or the event files next to it cannot be written ({error}). Free some "
            "disk space and check the write permissions. Then run the same command again to resume "
            "from the last checkpoint."
        )

    def sync(self) -> None:
        """Wait until the lines are on the disk. Call this before a checkpoint is stored.

        After a power cut, no line up to the checkpoint is then missing.

        Raises:
          InputError: the disk is full.
        """
        if self._file is not None:
            with self._reporting():
                os.fsync(self._file.fileno())

    def restart_clock(self) -> None:
        """Restart the measurement of times, to exclude work that is not a step."""
        self._clock = Clock()


def _without_nan(line: Line) -> Line:
    """Return the line with None in place of an undefined score, because JSON has no NaN."""
    scores = line.get("validation")
    if scores is None:
        return line
    defined = {name: None if math.isnan(score) else score for name, score in scores.items()}
    return {**line, "validation": defined}


def _require_finite(metrics: list[tuple[int, dict[str, np.ndarray]]]) -> None:
    """Raise InputError for the first step that has a metric that is not finite."""
    for step, values in metrics:
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(
                    f"the {name} of step {step} is {value}, not a finite number. Start again in "
                    "another --workdir with a lower --config.train.learning_rate, or look for "
                    "extreme intensities in the images."
                )


def _stays(line: bytes, first_step: int, validated: bool) -> bool:
    """Return whether a line is complete and will not be written again by the continued run."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):  # the line is incomplete or damaged
        return False
    if not line.endswith(b"\n") or not isinstance(content, dict):
        return False
    step = content.get("step")
    if not isinstance(step, int):
        return False
    return step < first_step or (step == first_step and (validated or "validation" not in content))


def _duration(seconds: float) -> str:
    """Format a duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
