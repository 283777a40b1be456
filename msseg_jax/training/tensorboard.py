"""The log of a training as event files, which TensorBoard shows; TensorFlow is not needed.

A record is written to its end before the training continues. tensorboardX's own SummaryWriter
gives its events to a thread, through a queue for which its `flush` does not wait. So only the parts
below it are used, which start no thread.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from msseg_jax.report.snapshot import Snapshot

# A line of log.jsonl: numbers by name; 'validation' has a mapping of its own.
Line = Mapping[str, Any]

# Numbers of a line that become curves. The time left is of no use later.
TRAINING_SCALARS = ("loss", "gradient_norm", "learning_rate", "patches_per_s", "data_wait_share")


class EventFile:
    """A new file in the run's folder of event files, one each time that a run begins or continues.

    There is no file before `begin`.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: EventsWriter | None = None  # None: not begun

    def begin(self, first_step: int) -> None:
        """Start after `first_step` steps; TensorBoard then hides later steps of older files."""
        self._folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names. These begin with the second in
        # which a file was opened, and continue with the steps for two files of one second.
        self._writer = EventsWriter(str(self._folder / "events"), f".{first_step:09}")
        self._add(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, line: Line) -> None:
        """Add the numbers of a line of log.jsonl; those that are not finite make no point."""
        values = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars_of(line).items()
            if math.isfinite(value)
        ]
        self._add(line["step"], summary=Summary(value=values))

    def write_picture(self, step: int, snapshot: Snapshot) -> None:
        """Add the picture of a held-out patient."""
        tag = f"validation_patient/{snapshot.patient}"
        self._add(step, summary=summary.image(tag, snapshot.pixels, dataformats="HWC"))

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, **content: SessionLog | Summary) -> None:
        assert self._writer is not None, "begin comes first"
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()


def scalars_of(line: Line) -> dict[str, float]:
    """Return the numbers of a line of log.jsonl that become curves, by the curve's name."""
    if "validation" in line:
        return {f"validation/{name}": value for name, value in line["validation"].items()}
    return {f"training/{name}": line[name] for name in TRAINING_SCALARS if name in line}
