"""Predict many patients, one after the other."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tqdm import tqdm

from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.outputs import Outputs, check_writable
from msseg_jax.inference.prediction import Prediction, predict
from msseg_jax.inference.record import (
    PredictionRecord,
    delete_outdated,
    earlier_record,
    finished_record,
    is_done,
    new_record,
    record_file,
    write_record,
)
from msseg_jax.inference.results import describe_pair, what_to_open, write_results
from msseg_jax.system.failures import continuing_after
from msseg_jax.volumes.layout import Patient

T = TypeVar("T")


@dataclass
class Tally:
    """The outcomes of the patients of a folder."""

    predicted: list[str] = field(default_factory=list)
    done_before: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # {patient: error message}
    not_reached: list[str] = field(default_factory=list)  # neither done nor failed
    interrupted: bool = False  # by Ctrl-C


def predict_patients(
    ensemble: Ensemble,
    patients: Sequence[Patient],
    options: Options,
    outputs: Outputs,
    overwrite: bool = False,
) -> Tally:
    """Predict each pair and write its results to folders. Continue if one fails.

    Args:
      ensemble: the networks.
      patients: the pairs.
      options: options of the prediction.
      outputs: folders for the results.
      overwrite: predict patients again if their results exist.
    """

    def work(patient: Patient, files: Outputs) -> "Task":
        record = new_record(ensemble, options, patient, files)
        return Task(record, lambda: predict(ensemble, patient, options))

    tasks = {patient.name: patient for patient in patients}
    return predict_each(tasks, outputs, work, overwrite)


@dataclass(frozen=True)
class Task:
    """A patient that is ready to be predicted."""

    record: PredictionRecord  # what the results will depend on
    predict: Callable[[], Prediction]


def predict_each(
    items: Mapping[str, T],
    outputs: Outputs,
    begin: Callable[[T, Outputs], Task],
    overwrite: bool,
) -> Tally:
    """Predict patients that are not done yet, write their results, and print a line for each.

    Continue if a patient fails. Ctrl-C ends the work. The tally then names the patients that were
    not reached, so that the tables can be written.

    Args:
      items: {patient: what `begin` takes}.
      outputs: folders for the results.
      begin: takes an item and the paths of its results. It does what comes before the prediction.
      overwrite: predict patients again if their results exist.
    """
    tally = Tally()
    # Patients with results come first: they need no prediction, so an interrupted run lists them.
    # `os.path.exists` also takes a name that is too long for a file.
    order = sorted(items, key=lambda name: not os.path.exists(record_file(outputs.of(name).mask)))
    try:
        for name in tqdm(order, "patients", disable=None, leave=False):
            with continuing_after(name, tally.failures):
                text, done_before = _predict_one(items[name], outputs.of(name), begin, overwrite)
                tqdm.write(text)
                (tally.done_before if done_before else tally.predicted).append(name)
    except KeyboardInterrupt:
        tally.interrupted = True
    ended = {*tally.predicted, *tally.done_before, *tally.failures}
    tally.not_reached = [name for name in items if name not in ended]
    return tally


def _predict_one(
    item: T, files: Outputs, begin: Callable[[T, Outputs], Task], overwrite: bool
) -> tuple[str, bool]:
    """Predict a patient, unless this was done before, and write its results.

    Args:
      item, begin, overwrite: as for `predict_each`.
      files: paths of the results.

    Returns:
      The line to print, and whether the patient was done before.
    """
    began_s = time.perf_counter()
    check_writable(files)
    task = begin(item, files)
    record_path = record_file(files.mask)
    earlier, now = earlier_record(record_path, replace=overwrite), task.record
    if not overwrite and is_done(now, earlier, files):
        assert earlier is not None
        lesions, volume_mm3 = earlier.lesions or 0, earlier.volume_mm3 or 0
        return what_to_open(files, lesions, volume_mm3, "done before"), True
    prediction = task.predict()
    if earlier is not None and not earlier.changes(now):
        # Results that are not asked for this time are still right.
        now = now.model_copy(update={"outputs": earlier.outputs | now.outputs})
    elif earlier is not None:
        delete_outdated(earlier, now, files)
    # The record is there before the results, so that a later run can tell results of a killed run
    # from files that this program did not write.
    write_record(record_path, now)
    write_results(prediction, files)
    seconds = time.perf_counter() - began_s
    write_record(record_path, finished_record(now, prediction, seconds))
    return describe_pair(prediction, files, seconds), False
