"""Find the preprocessing of the networks that predicted each patient."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.folds import runs_of
from msseg_jax.models.networks import preprocessings


def fitted_by_patient(
    models: Sequence[Path], patients: Iterable[str]
) -> dict[str, list[Preprocessing]]:
    """Return the fitted preprocessing of all networks that predicted a patient, by patient name.

    Args:
      models: folders of runs and cross-validations, and model files. In a cross-validation, only
        the run that held out the patient has predicted it.

    Raises:
      InputError: a model cannot be read.
    """
    fitted = {run: preprocessings(run) for run in runs_of(models)}
    return {
        name: [one for run in runs_of(models, name) for one in fitted[run]] for name in patients
    }
