"""What a training says of itself: lines to read, JSON lines to plot, a bar to watch.

Whoever wants TensorBoard too hands in an `EventFile`, which gets every JSON line.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from tqdm import tqdm

from msseg_jax.report.snapshot import Snapshot
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.training.tensorboard import EventFile


class TrainingLog:
    """Collects the metrics of steps and writes one line per interval.

    Metrics stay on the device until a line is written; at most one step is in flight, so that the
    times are those of the steps and not of their dispatch.
    """

    def __init__(
        self,
        path: Path | None,
        batch_size: int,
        total_steps: int,
        learning_rate,
        events: EventFile | None = None,
    ):
        self._path = path  # None: this process is not the one that writes
        self._batch_size = batch_size
        self._total_steps = total_steps
        self._learning_rate = learning_rate  # function of the number of steps done
        self._pending = []  # [(step, metrics)]
        self._events = events
        self._file = self._bar = None
        self._first = None  # (step, time) when the first step of this process was done

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # which the write has told of
                self._file.close()
        if self._events is not None:
            self._events.close()

    def begin(self, first_step: int, validated: bool = True) -> None:
        """Start after `first_step` steps; what the file says of later ones is to be done again.

        Args:
          validated: whether that step's validation, if it has one, is done.
        """
        self.restart_clock()
        if self._path is None:
            return
        if self._path.is_file():
            lines = self._path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _is_done(line, first_step, validated)]
            write_beside(self._path, lambda path: path.write_text("".join(kept)))
        self._file = self._path.open("a", buffering=1)  # a whole line at a time
        if self._events is not None:
            self._events.begin(first_step)
        self._bar = tqdm(
            total=self._total_steps, initial=first_step, unit="step", disable=None, leave=False
        )
        if first_step and not (validated and first_step == self._total_steps):
            self.say(f"continuing after step {first_step}")
        elif first_step:
            self.say(f"nothing to do: the run has all its {first_step} steps")

    def say(self, line: str) -> None:
        """A line for the reader alone, above the bar."""
        if self._path is not None:
            tqdm.write(line)

    def timed(self, batches: Iterable) -> Iterator:
        """The same batches; the time spent waiting for them is noted."""
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._waited_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def add(self, step: int, metrics: dict) -> None:
        """Note the metrics of a step (device scalars), which may still be running."""
        if self._first is None:
            jax.block_until_ready(metrics)
            self.say(f"first step, with compilation: {time.perf_counter() - self._start:.1f} s")
            self.restart_clock()  # the rates are those of the steps that follow
            self._first = step, self._start
        else:
            if self._pending:
                jax.block_until_ready(self._pending[-1])
            self._timed_steps += 1
        self._pending.append((step, metrics))
        if self._bar is not None:
            self._bar.update()

    def write(self) -> None:
        """Write what has come since the last line.

        Raises:
          InputError: at the first step whose loss or gradient is not finite.
        """
        if not self._pending:
            return
        metrics = jax.device_get(self._pending)
        for step, values in metrics:
            for name, value in values.items():
                if not math.isfinite(value):
                    raise InputError(
                        f"the {name} of step {step} is {value}; wanted a finite number: begin anew "
                        "in another --workdir with a lower --config.train.learning_rate, or look "
                        "for extreme intensities in the images"
                    )
        now = time.perf_counter()
        elapsed_s = now - self._start
        step = metrics[-1][0]
        line = {
            "step": step,
            "learning_rate": float(self._learning_rate(step - 1)),
            "loss": sum(float(values["loss"]) for _, values in metrics) / len(metrics),
            "gradient_norm": float(metrics[-1][1]["gradient_norm"]),
        }
        said = (
            f"step {step}/{self._total_steps}  rate {line['learning_rate']:.6f}  "
            f"loss {line['loss']:.4f}  gradient {line['gradient_norm']:.4f}"
        )
        if self._timed_steps:  # not after the first step alone
            line["patches_per_s"] = self._batch_size * self._timed_steps / elapsed_s
            line["data_wait_share"] = self._waited_s / elapsed_s
            # As the run has gone so far: with its validations and checkpoints.
            first_step, first_time = self._first
            step_s = (now - first_time) / (step - first_step)
            line["time_left_s"] = (self._total_steps - step) * step_s
            said += (
                f"  {line['patches_per_s']:.2f} patches/s  "
                f"data wait {100 * line['data_wait_share']:.0f} %  "
                f"left {_duration(line['time_left_s'])}"
            )
        self._write(line)
        self.say(said)
        self._pending.clear()
        self.restart_clock()

    def write_validation(self, step: int, scores: dict, snapshot: Snapshot | None) -> None:
        """Write the scores of the held-out patients, and the picture of one of them."""
        self._write({"step": step, "validation": scores})
        self.say(
            f"step {step}/{self._total_steps}  validation: Dice {scores['dice']:.3f}, "
            f"new lesions detected {scores['detected']}, missed {scores['missed']}, "
            f"false {scores['false']}"
        )
        if self._events is not None and snapshot is not None:
            self._events.write_picture(step, snapshot)

    def _write(self, line: dict) -> None:
        try:
            if self._file is not None:
                self._file.write(json.dumps(line) + "\n")
            if self._events is not None:
                self._events.write(line)
        except OSError as error:
            raise InputError(
                f"{self._path} and what TensorBoard reads beside it cannot be written ({error}); "
                "wanted room on the disk and the right to write: when there is, the same command "
                "goes on from the last checkpoint"
            ) from error

    def restart_clock(self) -> None:
        """Begin to measure anew: what came before was no step."""
        self._start = time.perf_counter()
        self._waited_s = 0.0
        self._timed_steps = 0


def _is_done(line: str, first_step: int, validated: bool) -> bool:
    """Whether a line is of what a run that goes on will not do again, and whole."""
    try:
        content = json.loads(line)
    except ValueError:  # cut short
        return False
    step = content["step"]
    return step < first_step or (step == first_step and (validated or "validation" not in content))


def _duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
