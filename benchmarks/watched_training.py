"""Train, and tell another process at any moment what this training is doing.

Usage: python -m benchmarks.watched_training PHASE_FILE TRAINING_FLAGS...
`benchmarks.kills` starts it. The first byte of PHASE_FILE is the number of the current phase in
`PHASES`. The file is mapped into memory, so its content survives the death of this process.
"""

import functools
import mmap
import sys
from pathlib import Path

PHASES = (
    "starting",  # Python starts, and imports libraries
    "checking",  # the configuration, the work folder, the network
    "caching",  # patients are read, measured and preprocessed
    "compiling",  # the state is created or restored, and the step is compiled
    "stepping",  # includes the log and the wait for batches
    "storing",  # a checkpoint is written, or its progress is replaced
    "validating",
    "scoring",  # held-out patients are predicted and scored, after the last step
)


class Phase:
    """The current phase in a shared file."""

    def __init__(self, path: Path):
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 1)

    def set(self, name: str) -> None:
        """Note the phase that begins."""
        self._map[0] = PHASES.index(name)

    def get(self) -> str:
        """Return the current phase."""
        return PHASES[self._map[0]]

    def during(self, name: str, work):
        """Return `work`, a function, such that the phase has this name while it runs."""

        @functools.wraps(work)
        def wrapped(*args, **kwargs):
            before = self.get()
            self.set(name)
            try:
                return work(*args, **kwargs)
            finally:
                self.set(before)

        return wrapped


def main():
    phase = Phase(Path(sys.argv[1]))
    phase.set("starting")
    from msseg_jax.cli import main as command_line
    from msseg_jax.models.checkpoints import Checkpoints
    from msseg_jax.training import experiment
    from msseg_jax.training.loop import Training
    from msseg_jax.training.validation import Validation

    for owner, function, name in (
        (experiment, "prepare_data", "caching"),
        (experiment, "train", "compiling"),
        (experiment, "_score_held_out", "scoring"),
        (Checkpoints, "save", "storing"),
        (Checkpoints, "set_progress", "storing"),
        (Validation, "__call__", "validating"),
    ):
        setattr(owner, function, phase.during(name, getattr(owner, function)))
    take_step = Training.take_step

    def step(*args):
        take_step(*args)
        phase.set("stepping")  # the phase after the first step, until `train` returns

    Training.take_step = step
    phase.set("checking")
    sys.exit(command_line.run("train", sys.argv[2:], "launch.py"))


if __name__ == "__main__":
    main()
