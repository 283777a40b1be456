"""The log of a training as event files for TensorBoard. TensorFlow is not needed.

Every record is completely written before the training continues. The SummaryWriter of tensorboardX
does not guarantee this: it passes events to a thread through a queue, and its `flush` does not wait
for that queue. Therefore this module uses lower-level parts of tensorboardX, which start no thread.
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

# A line of log.jsonl: numbers by name. The entry 'validation' is a nested mapping.
Line = Mapping[str, Any]

# Numbers of a line that become curves. The time left is not plotted: it is of no use later.
TRAINING_SCALARS = (
    "loss", "decoder_loss", "gradient_norm", "learning_rate", "patches_per_s", "data_wait_share",
)  # fmt: skip


class EventFile:
    """An event file of a run. Every time the run starts or continues, it makes a new file.

    The file does not exist before `begin`.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: EventsWriter | None = None  # None before `begin`

    def begin(self, first_step: int) -> None:
        """Create the file after `first_step` steps.

        TensorBoard then hides the later steps of older files.
        """
        self._folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names. A name starts with the time in
        # seconds. The step follows, in case two files are opened in the same second.
        self._writer = EventsWriter(str(self._folder / "events"), f".{first_step:09}")
        self._add(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, line: Line) -> None:
        """Add the numbers of a line of log.jsonl. Numbers that are not finite are skipped."""
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
        assert self._writer is not None, "call `begin` first"
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()


def scalars_of(line: Line) -> dict[str, float]:
    """Return the numbers of a line of log.jsonl that become curves, by name of the curve."""
    if "validation" in line:
        return {f"validation/{name}": value for name, value in line["validation"].items()}
    return {f"training/{name}": line[name] for name in TRAINING_SCALARS if name in line}
