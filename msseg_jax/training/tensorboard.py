"""What a training says of itself, as event files that TensorBoard shows; TensorFlow is not needed.

A record is written to its end before the training goes on. tensorboardX's own SummaryWriter hands
its events to a thread, through a queue that its `flush` does not wait for; so only the parts
beneath it are used, which start no thread.
"""

import math
import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from msseg_jax.report.snapshot import Snapshot

# Of a line of the log. The time left is of no use later.
TRAINING_SCALARS = ("loss", "gradient_norm", "learning_rate", "patches_per_s", "data_wait_share")


class EventFile:
    """One file for each time that a run is begun or continued, in one folder.

    Nothing is there before `begin`.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer = None

    def begin(self, first_step: int) -> None:
        """Start after `first_step` steps; what older files say of later ones is not shown."""
        self._folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names, which begin with the second they
        # were opened in: of two in the same second the steps decide.
        self._writer = EventsWriter(str(self._folder / "events"), f".{first_step:09}")
        self._add(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, line: dict) -> None:
        """Add the numbers of a line of log.jsonl; those that are not finite make no point."""
        values = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars_of(line).items()
            if math.isfinite(value)
        ]
        self._add(line["step"], summary=Summary(value=values))

    def write_picture(self, step: int, snapshot: Snapshot) -> None:
        """Add the picture of the held-out patient."""
        tag = f"validation_patient/{snapshot.patient}"
        self._add(step, summary=summary.image(tag, snapshot.pixels, dataformats="HWC"))

    def close(self) -> None:
        """Close the file; nothing where there is none."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, **content) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()


def scalars_of(line: dict) -> dict[str, float]:
    """The numbers of a line of log.jsonl that are drawn, by the name of their curve."""
    if "validation" in line:
        return {f"validation/{name}": value for name, value in line["validation"].items()}
    return {f"training/{name}": line[name] for name in TRAINING_SCALARS if name in line}
