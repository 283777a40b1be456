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
import os
from pathlib import Path

from msseg_jax.configuration.comparison import differences
from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.model_file import Beginning
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json


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

    def create_or_continue(self, config: Configuration) -> None:
        """Make the folder for a new run, or check that it holds a run of this configuration.

        Raises:
          InputError: the folder cannot be written, or its run has another configuration.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.path, os.W_OK)
        except OSError as error:
            raise InputError(
                f"--workdir={self.path}: {error}; expected a folder to write in"
            ) from error
        if not writable:
            raise InputError(
                f"--workdir={self.path}: cannot be written; expected a folder to write in"
            )
        if self.begun and (changed := differences(config, self._config())):
            raise InputError(
                f"--workdir={self.path} holds a run of another configuration:\n"
                + "\n".join(changed)
                + "\nexpected the same: give the old values, or another --workdir"
            )

    def keep(
        self,
        config: Configuration,
        preprocessing: Preprocessing,
        split: dict[str, dict[str, str]],
        initial: Beginning | None = None,
    ) -> None:
        """Store what a new run begins with, or check that a begun run has the same.

        Args:
          initial: what to remember of the network with which a new run begins.

        Raises:
          InputError: the data have changed since the run began.
        """
        if self.begun:
            stored = read_json(self.split_file)
            if split != stored or preprocessing != Preprocessing.load(self.preprocessing_file):
                raise InputError(
                    f"{self.split_file}: the run was begun with other data than "
                    f"{config.data.root} holds now: patients were added, removed or changed; "
                    "restore the old data, or choose another --workdir"
                )
        elif initial is None:
            self.initial_file.unlink(missing_ok=True)  # of a run that was given up at once
        else:
            _write_json(self.initial_file, initial.model_dump(mode="json"))
        _write_json(self.config_file, config.model_dump(mode="json"))
        _write_json(self.split_file, split)
        write_beside(self.preprocessing_file, preprocessing.save)

    def load(self) -> tuple[Configuration, Preprocessing]:
        """Return the configuration and the preprocessing of a trained run.

        Raises:
          InputError: this is no folder of a run.
        """
        if not self.path.is_dir():
            raise InputError(
                f"{self.path}: no such folder; expected the folder of a training (`msseg train`), "
                "or a model file: check the path"
            )
        if not self.begun:
            raise InputError(
                f"{self.path}: no trained run in it; expected the folder of a training (`msseg "
                "train`), with config.json, preprocessing.json and checkpoints, or a model file: "
                "check the path"
            )
        config, preprocessing = self._config(), Preprocessing.load(self.preprocessing_file)
        if preprocessing.settings != config.data.preprocessing:
            raise InputError(
                f"{self.preprocessing_file}: its settings are not those of "
                f"{self.config_file.name}; one of the two was changed after the training: restore "
                "both from a copy"
            )
        return config, preprocessing

    def _config(self) -> Configuration:
        name = f"{self.config_file}: config"
        return Configuration.of(read_json(self.config_file), name, complete=True)


def _write_json(path: Path, content: object) -> None:
    write_beside(path, lambda partial: partial.write_text(json.dumps(content, indent=1) + "\n"))
