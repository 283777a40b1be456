"""A run's folder: everything that continuing it, and inference, need.

RUN/config.json          the resolved configuration
RUN/preprocessing.json   what was fitted on the training patients
RUN/initial.json         the network with which it began, if that was trained before
RUN/split.json           training and validation patients, with digests of their voxels
RUN/log.jsonl            one line per log message of the training
RUN/tensorboard/         the same for TensorBoard, with a picture at each validation
RUN/checkpoints/last/    the newest states (orbax), to continue from
RUN/checkpoints/best/    the state with the best validation Dice
RUN/cache/               preprocessed patients, unless config.data.cache_dir is elsewhere
RUN/phantoms/            patients of a run that makes its own
RUN/predictions/, RUN/probabilities/, RUN/evaluation/    of the held-out patients
"""

import json
import logging
import os
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from msseg_jax.config import differences, load_config, save_config
from msseg_jax.data.files import read_json, write_beside
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.errors import InputError
from msseg_jax.parallel import is_main

logger = logging.getLogger(__name__)


class RunError(InputError):
    """A run's folder that cannot be used; the message says what is missing and what to do."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path | str):
        self.path = Path(path).resolve()  # orbax wants absolute paths
        self.config_file = self.path / "config.json"
        self.preprocessing_file = self.path / "preprocessing.json"
        self.initial_file = self.path / "initial.json"
        self.split_file = self.path / "split.json"
        self.log_file = self.path / "log.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"
        self.probabilities = self.path / "probabilities"
        self.evaluation = self.path / "evaluation"

    @property
    def begun(self) -> bool:
        """Whether there is a state to continue from: then the configuration is fixed."""
        return any(path.name.isdigit() for path in (self.checkpoints / "last").glob("*"))

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
        if self.begun and (changed := differences(config, load_config(self.config_file))):
            raise RunError(
                f"--workdir={self.path} holds a run of another configuration:\n"
                + "\n".join(changed)
                + "\nwanted the same: give back the old values, or another --workdir"
            )

    def keep(
        self,
        config: ConfigDict,
        preprocessing: Preprocessing,
        split: dict,
        initial: dict | None = None,
    ) -> None:
        """Begin the run with this, or see that it is what the run was begun with.

        Args:
          initial: of a new run, what to remember of the network with which it begins.

        Raises:
          RunError: the data have changed since the run began.
        """
        if self.begun:
            stored = read_json(self.split_file)
            if split != stored or preprocessing != Preprocessing.load(self.preprocessing_file):
                raise RunError(
                    f"{self.split_file}: the run was begun with other data than "
                    f"{config.data.root} holds now: patients were added, removed or changed; give "
                    "the old data back, or choose another --workdir"
                )
        elif initial is None:
            self.initial_file.unlink(missing_ok=True)  # of a run that was given up at once
        else:
            write_beside(self.initial_file, lambda path: path.write_text(json.dumps(initial)))
        write_beside(self.config_file, lambda path: save_config(config, path))
        write_beside(self.split_file, lambda path: path.write_text(json.dumps(split, indent=1)))
        write_beside(self.preprocessing_file, preprocessing.save)

    def load(self) -> tuple[ConfigDict, Preprocessing]:
        """Configuration and preprocessing of a trained run.

        Raises:
          RunError: this is no folder of a run.
        """
        if not self.path.is_dir():
            raise RunError(
                f"{self.path}: no such folder; wanted that of a run of launch.py, or a model "
                "file: check the path"
            )
        if not self.begun:
            raise RunError(
                f"{self.path}: no trained run in it; wanted the folder of a run of launch.py, with "
                "config.json, preprocessing.json and checkpoints, or a model file: check the path"
            )
        return load_config(self.config_file), Preprocessing.load(self.preprocessing_file)


class Checkpoints:
    """The states of one run, under `last` or `best`: `model`, `optimiser` and `progress` items.

    The items are separate, so that inference reads the model alone. Orbax writes each checkpoint
    beside its place and renames it.
    """

    def __init__(self, folder: Path, keep: int = 1, create: bool = True):
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        # Orbax would have all processes save together what is spread over them. Here each has all
        # of it, so each acts alone: the main one writes, and all read.
        alone = jax.process_index()
        main = is_main()
        options = ocp.CheckpointManagerOptions(
            read_only=not main, max_to_keep=keep if main else None,
            save_interval_steps=1 if main else 0,  # else orbax warns that it is not read-only
            create=False, enable_async_checkpointing=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=str(alone)
            ),
        )  # fmt: skip
        self._manager = ocp.CheckpointManager(
            folder, options=options, item_names=("model", "optimiser", "progress")
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, model, optimiser, progress: dict) -> None:
        """Write a checkpoint, in place of any of this step or later; returns when it is complete.

        Later ones are left over from a run that was stopped between two checkpoints and is doing
        those steps again; orbax would not write an earlier one beside them.

        Raises:
          RunError: the disk is full, or cannot be written. Earlier checkpoints stay.
        """
        model, optimiser = jax.device_get((model, optimiser))
        try:
            for later in self.steps():
                if later >= step:
                    self._manager.delete(later)
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(model),
                    optimiser=ocp.args.StandardSave(optimiser),
                    progress=ocp.args.JsonSave(progress),
                ),
            )
            self._manager.wait_until_finished()
        except Exception as error:  # orbax has no error of its own for a disk that is full
            raise RunError(self._not_saved(step, f"{type(error).__name__}: {error}")) from error
        if not saved:
            raise RunError(self._not_saved(step, "orbax did not say why"))

    def set_progress(self, step: int, progress: dict) -> None:
        """Change the progress that a checkpoint holds, if there is one of this step.

        Its one file is replaced: a checkpoint that is written anew is missing for a moment.

        Raises:
          RunError: as `save`. The checkpoint stays as it was.
        """
        if step not in self.steps():
            return
        file = Path(self._manager.directory) / str(step) / "progress" / "metadata"  # of JsonSave
        try:
            write_beside(file, lambda path: path.write_text(json.dumps(progress)))
        except OSError as error:
            raise RunError(self._not_saved(step, str(error))) from error

    def _not_saved(self, step: int, why: str) -> str:
        return (
            f"{self._manager.directory}: step {step} could not be stored ({why}); wanted room on "
            "the disk and the right to write: when there is, the same command goes on from the "
            f"last complete checkpoint ({max(self.steps(), default='none yet')})"
        )

    def restore_newest(self, model, optimiser) -> tuple | None:
        """(step, model, optimiser, progress) of the newest readable checkpoint; None if there is
        none at all. The arguments give the shapes.

        Raises:
          RunError: there are checkpoints, and none of them can be read.
        """
        return self._newest(
            ocp.args.Composite(
                model=ocp.args.StandardRestore(_abstract(model)),
                optimiser=ocp.args.StandardRestore(_abstract(optimiser)),
                progress=ocp.args.JsonRestore(),
            ),
            ("model", "optimiser", "progress"),
        )

    def restore_newest_model(self, model) -> tuple | None:
        """(step, model) of the newest readable checkpoint; as `restore_newest`."""
        args = ocp.args.Composite(model=ocp.args.StandardRestore(_abstract(model)))
        return self._newest(args, ("model",))

    def _newest(self, args, items: tuple[str, ...]) -> tuple | None:
        failures = []
        for step in self.steps():
            try:
                restored = self._manager.restore(step, args=args)
                return step, *(restored[item] for item in items)
            except Exception as error:  # orbax has no error of its own for damaged files
                failures.append(f"step {step}: {type(error).__name__}: {error}")
                logger.warning(
                    "%s: step %d cannot be read: %s", self._manager.directory, step, error
                )
        if failures:
            raise RunError(
                f"{self._manager.directory}: no checkpoint can be read: damaged, or of another "
                "network; give back a copy, or train anew in another --workdir\n"
                + "\n".join(failures)
            )
        return None


def _abstract(tree):
    """Shapes with this process's first device: a checkpoint of 4 devices loads on 1."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
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
        if not folder.is_dir():
            continue
        try:
            with Checkpoints(folder, create=False) as checkpoints:
                if newest := checkpoints.restore_newest_model(model_shapes):
                    step, model = newest
                    return model, kind, step
        except RunError as error:
            if kind == "last":
                raise
            logger.warning("%s; the last checkpoint takes its place", error)
    raise RunError(
        f"{run.checkpoints}: no checkpoint in it; wanted a trained run: train it on with "
        "launch.py, or check the path"
    )
