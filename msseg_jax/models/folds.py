"""A cross-validation's folder: a run for each fold, and its predictions of the held-out patients.

WORKDIR/folds.json                    which patients are in which fold, by the name of its run
WORKDIR/fold_<k>/                     the run that holds out fold k, as `run_folder` describes it
WORKDIR/fold_<k>/predicted.json       the checkpoint that predicted its patients, all of them
WORKDIR/predictions/, probabilities/  every patient, by the run that has not seen it
WORKDIR/evaluation/                   of all of them together
WORKDIR/cache/                        of all runs, unless config.data.cache_dir is elsewhere
WORKDIR/phantoms/                     patients, where they are made
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from msseg_jax.models.released import WEIGHTS, released
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json

_Names = TypeAdapter(dict[str, list[str]])  # of the patients, by the name of the run


class Folds:
    """The files of one cross-validation."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.file = self.path / "folds.json"
        self.predictions = self.path / "predictions"
        self.probabilities = self.path / "probabilities"
        self.evaluation = self.path / "evaluation"

    @property
    def exist(self) -> bool:
        """Whether this is a cross-validation's folder."""
        return self.file.is_file()

    def run(self, fold: int) -> Path:
        """Return the folder of the run that holds out a fold."""
        return self.path / f"fold_{fold}"

    def load(self) -> list[list[str]]:
        """Return the names of the patients of each fold.

        Raises:
          InputError: the file is missing or damaged.
        """
        try:
            patients = _Names.validate_python(read_json(self.file))
            return [patients[self.run(fold).name] for fold in range(len(patients))]
        except (ValidationError, KeyError) as error:
            raise InputError(
                f"{self.file}: is damaged ({error}); expected the patients of each fold: restore "
                "it from a copy"
            ) from error

    def save(self, folds: list[list[str]]) -> None:
        """Write down the patients of each fold."""
        patients = {self.run(fold).name: names for fold, names in enumerate(folds)}
        write_beside(self.file, lambda path: path.write_text(json.dumps(patients, indent=1)))


def runs_of(models: Sequence[Path], patient: str | None = None) -> list[Path]:
    """Return the folders of runs and the model files that some paths stand for.

    Args:
      models: folders of runs, folders of cross-validations, model files, and 'weights' for the
        released file.
      patient: if a cross-validation has held it out, only the run that did so is returned.

    Raises:
      InputError: a run is named twice, so that it would count double; or there are no released
        weights.
    """
    runs: list[Path] = []
    for model in models:
        model = released() if str(model) == WEIGHTS else model
        folds = Folds(model)
        names = folds.load() if folds.exist else []
        own = [folds.run(fold) for fold in range(len(names))] or [folds.path]
        runs += [
            run for run, held_out in zip(own, names, strict=False) if patient in held_out
        ] or own
    places = [run.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"--model: {run} is given twice; expected each once")
    return runs
