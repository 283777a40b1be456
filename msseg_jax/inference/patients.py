"""Predict many patients, one after the other."""

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
    not_reached: list[str] = field(default_factory=list)  # Ctrl-C came before
    interrupted: bool = False


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
    # Patients that are done come first, because this takes no time. So they are in the tables, also
    # if the run is interrupted soon.
    there = {path.name for path in outputs.mask.glob("*.json")}
    order = sorted(items, key=lambda name: record_file(outputs.of(name).mask).name not in there)
    try:
        _predict_each({name: items[name] for name in order}, outputs, begin, overwrite, tally)
    except KeyboardInterrupt:
        tally.interrupted = True
    ended = {*tally.predicted, *tally.done_before, *tally.failures}
    tally.not_reached = [name for name in items if name not in ended]
    return tally


def _predict_each(
    items: Mapping[str, T],
    outputs: Outputs,
    begin: Callable[[T, Outputs], Task],
    overwrite: bool,
    tally: Tally,
) -> None:
    """Do what `predict_each` says, and add each patient to the tally."""
    for name in tqdm(items, "patients", disable=None, leave=False):
        with continuing_after(name, tally.failures):
            began_s = time.perf_counter()
            files = outputs.of(name)
            check_writable(files)
            task = begin(items[name], files)
            record_path = record_file(files.mask)
            earlier, now = earlier_record(record_path, replace=overwrite), task.record
            if not overwrite and is_done(now, earlier, files):
                assert earlier is not None
                text = what_to_open(
                    files, earlier.lesions or 0, earlier.volume_mm3 or 0, "done before"
                )
                done = tally.done_before
            else:
                prediction = task.predict()
                if earlier is not None and not earlier.changes(now):
                    # Results that are not asked for this time are still right.
                    now = now.model_copy(update={"outputs": earlier.outputs | now.outputs})
                elif earlier is not None:
                    delete_outdated(earlier, now, files)
                # The record is there before the results, so that a later run can tell results of
                # a killed run from files that this program did not write.
                write_record(record_path, now)
                write_results(prediction, files)
                seconds = time.perf_counter() - began_s
                write_record(record_path, finished_record(now, prediction, seconds))
                text = describe_pair(prediction, files, seconds)
                done = tally.predicted
            tqdm.write(text)
            done.append(name)
