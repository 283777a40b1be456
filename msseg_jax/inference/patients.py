"""Predict many patients, one after the other."""

from collections.abc import Callable, Iterable, Sequence

from tqdm import tqdm

from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.prediction import predict
from msseg_jax.inference.results import describe_results, write_results
from msseg_jax.system.failures import continuing_after
from msseg_jax.volumes.layout import Patient


def predict_patients(
    ensemble: Ensemble,
    patients: Sequence[Patient],
    options: Options,
    outputs: Outputs,
    overwrite: bool = False,
) -> dict[str, str]:
    """Predict each pair and write its results to folders. Continue if one fails.

    Args:
      ensemble: the networks.
      patients: the pairs.
      options: options of the prediction.
      outputs: folders for the results.
      overwrite: predict patients again if their results exist.

    Returns:
      {patient: error message} of the patients that failed.
    """
    by_name = {patient.name: patient for patient in patients}

    def write(name: str) -> str:
        files = outputs.of(name)
        if files.are_there and not overwrite:
            return done_before(files)
        prediction = predict(ensemble, by_name[name], options)
        write_results(prediction, files)
        return describe_results(prediction, files)

    return for_each_patient(by_name, write)


def done_before(files: Outputs) -> str:
    """Return the message about a patient that is skipped, because all results exist."""
    return f"{files.mask}: done before, skipped (use --overwrite to predict again)"


def for_each_patient(names: Iterable[str], work: Callable[[str], str]) -> dict[str, str]:
    """Call a function for each patient and print its result. Continue if it fails for a patient.

    Args:
      names: names of the patients.
      work: takes the name of a patient, and returns the text to print.

    Returns:
      {patient: error message} of the patients that failed.
    """
    failures: dict[str, str] = {}
    for name in tqdm(list(names), "patients", disable=None, leave=False):
        with continuing_after(name, failures):
            tqdm.write(work(name))
    return failures
