"""Many patients, one after the other."""

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
    """Write the results of each pair into folders; continue after one that fails.

    Args:
      overwrite: predict patients again whose results are there.

    Returns:
      {patient: what went wrong}, empty when all went well.
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
    """Return what to say of a patient whose results are there."""
    return f"{files.mask}: done before, skipped (--overwrite does it again)"


def for_each_patient(names: Iterable[str], work: Callable[[str], str]) -> dict[str, str]:
    """Do some work for each patient and print what it returns; continue after one that fails.

    Returns:
      {patient: what went wrong}, empty when all went well.
    """
    failures: dict[str, str] = {}
    for name in tqdm(list(names), "patients", disable=None, leave=False):
        with continuing_after(name, failures):
            tqdm.write(work(name))
    return failures
