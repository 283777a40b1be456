"""A run's folder: everything that continuing it, and inference, need.

RUN/config.json          the resolved configuration
RUN/preprocessing.json   what was fitted on the training patients
RUN/split.json           names of the training and validation patients
RUN/log.jsonl            one line per log message of the training
RUN/checkpoints/last/    the newest states (orbax), to continue from
RUN/checkpoints/best/    the state with the best validation Dice
"""

import json
import os
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from msseg_jax.config import differences, load_config, save_config
from msseg_jax.data.files import write_beside
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.errors import InputError


class RunError(InputError):
    """A run's folder that cannot be used; the message says what is missing and what to do."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path | str):
        self.path = Path(path).resolve()  # orbax wants absolute paths
        self.config_file = self.path / "config.json"
        self.preprocessing_file = self.path / "preprocessing.json"
        self.split_file = self.path / "split.json"
        self.log_file = self.path / "log.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"

    def create_or_continue(self, config: ConfigDict) -> None:
        """Make the folder for a new run, or see that it holds a run of this configuration.

        Raises:
          RunError: the folder cannot be written, or its run has another configuration.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.path, os.W_OK)
        except OSError as error:
            raise RunError(
                f"--workdir={self.path}: {error}; wanted a folder to write in"
            ) from error
        if not writable:
            raise RunError(f"--workdir={self.path}: cannot be written; wanted a folder to write in")
        if self.config_file.is_file():
            changed = differences(config, load_config(self.config_file))
            if changed:
                raise RunError(
                    f"--workdir={self.path} holds a run of another configuration:\n"
                    + "\n".join(changed)
                    + "\nwanted the same: give back the old values, or another --workdir"
                )
        elif self.checkpoints.exists():
            raise RunError(f"{self.config_file}: missing from a run; choose another --workdir")
        write_beside(self.config_file, lambda path: save_config(config, path))

    def keep(self, preprocessing: Preprocessing, split: dict[str, list[str]]) -> None:
        """Store what was fitted, or see that it is what the run was begun with.

        Raises:
          RunError: the data have changed since the run began.
        """
        if self.split_file.is_file() and self.preprocessing_file.is_file():
            for what, ours, theirs in (
                ("split", split, json.loads(self.split_file.read_text())),
                ("preprocessing", preprocessing, Preprocessing.load(self.preprocessing_file)),
            ):
                if ours != theirs:
                    raise RunError(
                        f"{self.path / what}.json differs from what the data give now: patients "
                        "were added, removed or changed since the run began; give the old data "
                        "back, or choose another --workdir"
                    )
        write_beside(self.preprocessing_file, preprocessing.save)
        write_beside(self.split_file, lambda path: path.write_text(json.dumps(split, indent=1)))

    def load(self) -> tuple[ConfigDict, Preprocessing]:
        """Configuration and preprocessing of a trained run.

        Raises:
          RunError: this is no folder of a run.
        """
        for file in (self.config_file, self.preprocessing_file):
            if not file.is_file():
                raise RunError(
                    f"{file}: no such file; wanted the folder of a run of launch.py, with "
                    "config.json, preprocessing.json and checkpoints: check --model"
                )
        return load_config(self.config_file), Preprocessing.load(self.preprocessing_file)


class Checkpoints:
    """The states of one run, under `last` or `best`: `model`, `optimiser` and `progress` items.

    The items are separate, so that inference reads the model alone. Orbax writes each checkpoint
    beside its place and renames it.
    """

    def __init__(self, folder: Path, keep: int = 1, create: bool = True):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=create, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(
            folder, options=options, item_names=("model", "optimiser", "progress")
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, model, optimiser, progress: dict) -> None:
        """Write a checkpoint, over one of the same step; returns when it is complete."""
        if step in self._manager.all_steps():
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model),
                optimiser=ocp.args.StandardSave(optimiser),
                progress=ocp.args.JsonSave(progress),
            ),
        )
        self._manager.wait_until_finished()

    def restore(self, step: int, model, optimiser) -> tuple:
        """(model, optimiser, progress) of a step; the arguments give the shapes."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(_abstract(model)),
                optimiser=ocp.args.StandardRestore(_abstract(optimiser)),
                progress=ocp.args.JsonRestore(),
            ),
        )
        return restored.model, restored.optimiser, restored.progress

    def restore_model(self, step: int, model):
        """The model of a step alone."""
        args = ocp.args.Composite(model=ocp.args.StandardRestore(_abstract(model)))
        return self._manager.restore(step, args=args).model


def _abstract(tree):
    """Shapes with this process's first device: a checkpoint of 4 devices loads on 1."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def restore_for_inference(run: RunFolder, model_shapes) -> tuple:
    """(model variables, 'best' or 'last', step): the best of a run, or its last where none is.

    Raises:
      RunError: the run has no checkpoint.
    """
    for kind in ("best", "last"):
        folder = run.checkpoints / kind
        if folder.is_dir():
            with Checkpoints(folder, create=False) as checkpoints:
                step = checkpoints.latest_step()
                if step is not None:
                    return checkpoints.restore_model(step, model_shapes), kind, step
    raise RunError(
        f"{run.checkpoints}: no checkpoint in it; wanted a trained run: train it on with "
        "launch.py, or check --model"
    )
