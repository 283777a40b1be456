"""A prediction as files, and in words."""

import time

from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.prediction import Prediction
from msseg_jax.inference.report import write_report
from msseg_jax.volumes.nifti import write_volume


def write_results(prediction: Prediction, outputs: Outputs) -> None:
    """Write the files of one patient that are asked for; the mask comes last."""
    found, delivered = prediction.found, prediction.delivered
    if outputs.report is not None:
        write_report(outputs.report, prediction, outputs)
    if outputs.in_middle is not None:
        write_volume(outputs.in_middle, found.mask, found.like)
    if outputs.probability is not None:
        write_volume(outputs.probability, delivered.probability, delivered.like)
    if outputs.uncertainty is not None:
        write_volume(outputs.uncertainty, delivered.disagreement, delivered.like)
    write_volume(outputs.mask, delivered.mask, delivered.like)


def describe_results(prediction: Prediction, outputs: Outputs) -> str:
    """Return what was found and what to know of it, a line each."""
    seconds = time.perf_counter() - prediction.began_s
    lines = [f"{outputs.mask}: {prediction.delivered}, in {seconds:.1f} s"]
    if outputs.in_middle is not None:
        lines.append(f"{outputs.in_middle}: {prediction.found}")
    return "\n".join([*lines, *(f"  warning: {warning}" for warning in prediction.warnings)])
