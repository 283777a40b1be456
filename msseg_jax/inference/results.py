"""Write a prediction to files, and describe it as text."""

import time

from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.prediction import Prediction
from msseg_jax.inference.report import write_report
from msseg_jax.volumes.nifti import write_volume


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
    write_volume(outputs.mask, delivered.mask, delivered.like)


def describe_results(prediction: Prediction, outputs: Outputs) -> str:
    """Return a summary of the new lesions, and the warnings, with one line for each."""
    seconds = time.perf_counter() - prediction.began_s
    lines = [f"{outputs.mask}: {prediction.delivered}, in {seconds:.1f} s"]
    if outputs.in_middle is not None:
        lines.append(f"{outputs.in_middle}: {prediction.found}")
    return "\n".join([*lines, *(f"  warning: {warning}" for warning in prediction.warnings)])
