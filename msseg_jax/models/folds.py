"""The folder of a cross-validation: one run per fold, and predictions of all patients.

WORKDIR/folds.json                    names of the patients in each fold, by the name of its run
WORKDIR/fold_<k>/                     the run that holds out fold k; `run_folder` describes it
WORKDIR/fold_<k>/predicted.json       the checkpoint that predicted all patients of fold k
WORKDIR/predictions/, probabilities/  results of each patient, from the run that held it out
WORKDIR/evaluation/                   evaluation of all predictions together
WORKDIR/cache/                        shared by all runs, unless config.data.cache_dir is set
WORKDIR/phantoms/                     the patients, if the cross-validation makes phantoms
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from msseg_jax.models.released import WEIGHTS, released
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.shown import shortened

_Names = TypeAdapter(dict[str, list[str]])  # names of patients, by the name of the run


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
        """True if this is the folder of a cross-validation."""
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
        except ValidationError as error:
            raise self._damaged(shortened(error)) from error
        names = [self.run(fold).name for fold in range(len(patients))]
        count = self._count()
        if patients.keys() != set(names) or len(names) != (count or len(names)):
            listed = shortened(", ".join(patients) or "no fold")
            expected = f"{count} folds" if count else f"the folds fold_0 to fold_{len(names) - 1}"
            raise self._damaged(f"it lists {listed}; the runs have {expected}")
        return [patients[name] for name in names]

    def _count(self) -> int | None:
        """Return the number of folds that the first started run has in its configuration.

        Without this check, a file that lacks folds would silently give a smaller ensemble.
        """
        for config in sorted(self.path.glob("fold_*/config.json")):
            content = read_json(config)
            try:
                return int(content["data"]["folds"])
            except (KeyError, TypeError, ValueError, OverflowError):
                continue  # reported when this run is used
        return None

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"{self.file}: is damaged ({why}); expected the patients of each fold. Restore it from "
            "a copy, or delete it and run the cross-validation again, which makes it again."
        )

    def save(self, folds: list[list[str]]) -> None:
        """Write the names of the patients of each fold to the file."""
        patients = {self.run(fold).name: names for fold, names in enumerate(folds)}
        write_beside(
            self.file,
            lambda path: path.write_text(json.dumps(patients, indent=1), encoding="utf-8"),
        )


def runs_of(models: Sequence[Path], patient: str | None = None) -> list[Path]:
    """Return the folders of runs and the model files that `models` refers to.

    Args:
      models: folders of runs, folders of cross-validations, model files, and 'weights' for the
        released weights.
      patient: name of a patient. For a cross-validation that held it out, only the run that did so
        is returned.

    Raises:
      InputError: a run is given twice, so it would have twice the weight; or the released weights
        are missing.
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
            raise InputError(f"{run}: this model is given twice. Give each model only once.")
    return runs
