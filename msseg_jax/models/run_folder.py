"""The folder of a run. It contains everything that is needed to continue the run, and to predict.

RUN/config.json          the configuration, with all overrides applied
RUN/preprocessing.json   values fitted on the training patients
RUN/initial.json         the trained network from which the run was started, if there was one
RUN/split.json           training and validation patients, with digests of their voxels
RUN/log.jsonl            one line per log message of the training
RUN/tensorboard/         the same for TensorBoard, with a picture at each validation
RUN/checkpoints/last/    the newest states (orbax), to continue from
RUN/checkpoints/best/    the state with the best validation Dice
RUN/cache/               preprocessed patients, unless config.data.cache_dir is set
RUN/phantoms/            the patients, if the run makes phantoms
RUN/predictions/, RUN/probabilities/, RUN/evaluation/    results of the held-out patients
"""

import json
from pathlib import Path

from msseg_jax.configuration.comparison import differences
from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.model_file import Beginning
from msseg_jax.system.atomic import clear_partial_files, write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json

_EXPECTED = (
    "--model and config.init expect 'weights' (the released weights), a model file, or the folder "
    "of a run or of a cross-validation."
)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path | str):
        self.path = Path(path).resolve()  # orbax needs absolute paths
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
        """True if the run has a state to continue from. Its configuration is then fixed."""
        return self.last_step > 0

    @property
    def last_step(self) -> int:
        """Step of the newest state to continue from; 0 if there is none."""
        names = [path.name for path in (self.checkpoints / "last").glob("*")]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def create(self) -> None:
        """Create the folder if it does not exist, and check what lies in it.

        Raises:
          InputError: the folder cannot be made, or a path in it is of the wrong kind.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--workdir={self.path}: {error}; expected a folder to write in. Choose another "
                "--workdir."
            ) from error
        for path in (self.config_file, self.preprocessing_file, self.initial_file, self.split_file,
                     self.log_file):  # fmt: skip
            if path.is_dir():
                raise InputError(
                    f"{path}: is a folder; expected a file of the run, or nothing. Move it away, "
                    "or choose another --workdir."
                )
        for path in (self.tensorboard, self.checkpoints, self.predictions, self.probabilities,
                     self.evaluation, self.path / "cache", self.path / "phantoms"):  # fmt: skip
            if path.exists() and not path.is_dir():
                raise InputError(
                    f"{path}: is a file; expected a folder of the run, or nothing. Move it away, "
                    "or choose another --workdir."
                )

    def create_or_continue(self, config: Configuration) -> None:
        """Create the folder of a new run, or check that its run has this configuration.

        Raises:
          InputError: the folder cannot be used, or its run has another configuration.
        """
        self.create()
        if self.begun and (changed := differences(config, self.configuration())):
            raise InputError(
                f"--workdir={self.path} contains a run with another configuration:\n"
                + "\n".join(changed)
                + "\nUse the same values as in the run, or another --workdir."
            )

    def clear_left_overs(self) -> None:
        """Delete the files that killed processes left unfinished. The folder must be locked."""
        results = (self.evaluation, self.predictions, self.probabilities)
        for folder in (self.path, *results, *self.checkpoints.glob("last/*/progress")):
            clear_partial_files(folder)

    def keep(
        self,
        config: Configuration,
        preprocessing: Preprocessing,
        split: dict[str, dict[str, str]],
        initial: Beginning | None = None,
    ) -> None:
        """Store the inputs of a new run, or check that they are still those of a started run.

        Args:
          config: the configuration.
          preprocessing: values fitted on the training patients.
          split: training and validation patients, with digests of their voxels.
          initial: record of the network from which a new run is started.

        Raises:
          InputError: the data have changed since the run was started.
        """
        if self.begun:
            stored = read_json(self.split_file)
            if split != stored or preprocessing != Preprocessing.load(self.preprocessing_file):
                raise InputError(
                    f"{self.split_file}: the run was started with other data than "
                    f"{config.data.root} contains now. Patients were added, removed or changed. "
                    "Restore the old data, or choose another --workdir."
                )
        elif initial is None:
            self.initial_file.unlink(missing_ok=True)  # left by an earlier run that stored no state
        else:
            _write_json(self.initial_file, initial.model_dump(mode="json"))
        _write_json(self.config_file, config.model_dump(mode="json"))
        _write_json(self.split_file, split)
        write_beside(self.preprocessing_file, preprocessing.save)

    def load(self) -> tuple[Configuration, Preprocessing]:
        """Return the configuration and the preprocessing of a trained run.

        Raises:
          InputError: this is not the folder of a trained run.
        """
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such file or folder. {_EXPECTED}")
        if not self.begun:
            raise InputError(
                f"{self.path}: this folder does not contain a trained run (config.json, "
                f"preprocessing.json and checkpoints). {_EXPECTED}"
            )
        config, preprocessing = self.configuration(), Preprocessing.load(self.preprocessing_file)
        if preprocessing.settings != config.data.preprocessing:
            raise InputError(
                f"{self.preprocessing_file}: its settings are not those of "
                f"{self.config_file.name}, so one of the two was changed after the training. "
                "Restore both from a copy."
            )
        return config, preprocessing

    def configuration(self) -> Configuration:
        """Return the stored configuration.

        Raises:
          InputError: the file is missing or damaged.
        """
        name = f"{self.config_file}: config"
        return Configuration.of(read_json(self.config_file), name, complete=True)


def _write_json(path: Path, content: object) -> None:
    write_beside(
        path,
        lambda partial: partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"),
    )
