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

from ml_collections import ConfigDict

from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.configuration import differences, load_config, save_config
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json

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
