"""Write a prediction to files, and describe it as text."""

import time

import numpy as np

from msseg_jax.inference.lesion_table import write_lesion_table
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.prediction import Prediction
from msseg_jax.inference.record import finished_record, new_record, record_file, write_record
from msseg_jax.inference.report import write_report
from msseg_jax.system.words import closing_line, count_of, duration, warning_line
from msseg_jax.volumes.names import stem
from msseg_jax.volumes.nifti import write_volume

MOST_IN_16_BITS = np.iinfo(np.uint16).max


def write_pair(prediction: Prediction, outputs: Outputs, seconds: float) -> None:
    """Write the requested files of a single pair, and then its record.

    Args:
      prediction: the prediction.
      outputs: paths of the files, with those of the tables.
      seconds: how long the prediction took so far.
    """
    began_s = time.perf_counter()
    path = record_file(outputs.mask)
    path.unlink(missing_ok=True)  # it does not describe the new mask
    write_results(prediction, outputs)
    scans = None if prediction.on_scanner is None else prediction.on_scanner.asked_for
    begun = new_record(prediction.ensemble, prediction.options, prediction.patient, outputs, scans)
    seconds += time.perf_counter() - began_s
    write_record(path, finished_record(begun, prediction, seconds))


def write_results(prediction: Prediction, outputs: Outputs) -> None:
    """Write the requested files of one patient. The mask is written last."""
    found, delivered = prediction.found, prediction.delivered
    if outputs.report is not None:
        write_report(outputs.report, prediction, outputs)
    if outputs.in_middle is not None:
        write_volume(outputs.in_middle, found.mask, found.like)
    if outputs.probability is not None:
        write_volume(outputs.probability, delivered.probability, delivered.like)
    if outputs.uncertainty is not None:
        write_volume(outputs.uncertainty, delivered.disagreement, delivered.like)
    for kind in ("changes", "lesions01", "lesions02"):
        if (path := outputs.by_kind.get(kind)) is not None:
            write_volume(path, getattr(delivered, kind), delivered.like)
    if outputs.table is not None:
        write_lesion_table(outputs.table, prediction, stem(outputs.mask))
    if outputs.numbered is not None:
        numbered = delivered.numbered
        dtype = np.uint16 if numbered.max(initial=0) <= MOST_IN_16_BITS else np.uint32
        write_volume(outputs.numbered, numbered.astype(dtype), delivered.like)
    write_volume(outputs.mask, delivered.mask, delivered.like)


def describe_pair(prediction: Prediction, outputs: Outputs, seconds: float) -> str:
    """Return further warnings, and then a line about the result; see `what_to_open`.

    Warnings about the pair were logged before the networks were applied, so they are left out.
    """
    delivered, logged = prediction.delivered, prediction.segmentation.quality.warnings()
    line = what_to_open(outputs, delivered.count, delivered.volume_mm3, duration(seconds))
    more = [warning for warning in prediction.warnings if warning not in logged]
    return "\n".join([*(warning_line(prediction.patient.name, one) for one in more), line])


def what_to_open(outputs: Outputs, lesions: int, volume_mm3: float, ending: str) -> str:
    """Return a line such as 'report: new.html (4 lesions, 2405 mm3), 73 s'.

    Args:
      ending: the duration, or another remark.
    """
    kind, path = outputs.to_open
    content = f"{count_of(lesions, 'lesion')}, {volume_mm3:.0f} mm3"
    return closing_line(kind, path, content, ending)
