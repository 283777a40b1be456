"""Write a prediction to files, and describe it as text."""

from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.prediction import Prediction
from msseg_jax.inference.record import forget_record
from msseg_jax.inference.report import write_report
from msseg_jax.system.words import closing_line, count_of, duration, warning_line
from msseg_jax.volumes.nifti import write_volume


def write_pair(prediction: Prediction, outputs: Outputs) -> None:
    """Write the requested files of a single pair.

    If there is a record of the earlier mask, it is deleted, because it does not describe this one.
    """
    forget_record(outputs.mask)
    write_results(prediction, outputs)


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
