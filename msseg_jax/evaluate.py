"""Predicted masks against reference masks: one row per patient, and a table to read."""

import math
from dataclasses import dataclass
from pathlib import Path

from msseg_jax.data.dataset import CONSENSUS
from msseg_jax.data.volumes import VolumeError, grid_difference, read_volume
from msseg_jax.scores import LesionCounts, count_lesions, dice


@dataclass(frozen=True)
class PatientScore:
    """One patient's prediction against the consensus."""

    name: str
    dice: float  # NaN where both masks are empty
    lesions: LesionCounts


def score_patients(root: Path, predictions: Path, names: list[str]) -> list[PatientScore]:
    """Score PREDICTIONS/<name>.nii.gz against ROOT/<name>/ground_truth.nii.gz, for each name.

    Raises:
      VolumeError: a mask is missing or unreadable, or the two lie on different grids.
    """
    scores = []
    for name in names:
        reference = read_volume(root / name / CONSENSUS)
        prediction = read_volume(predictions / f"{name}.nii.gz")
        if difference := grid_difference(reference, prediction):
            raise VolumeError(difference)
        masks = reference.array > 0.5, prediction.array > 0.5
        scores.append(PatientScore(name, dice(*masks), count_lesions(*masks)))
    return scores


def format_table(scores: list[PatientScore]) -> str:
    """A table with a row per patient and the totals; Dice is - where both masks are empty."""
    width = max([len("patient"), *(len(score.name) for score in scores)])
    lines = [f"{'patient':<{width}}   Dice  found  missed  false"]
    for score in scores:
        counts = score.lesions
        lines.append(
            f"{score.name:<{width}}  {_number(score.dice)}  {counts.found:5}  {counts.missed:6}  "
            f"{counts.false:5}"
        )
    found, missed, false = (
        sum(getattr(score.lesions, field) for score in scores)
        for field in ("found", "missed", "false")
    )
    defined = [score.dice for score in scores if not math.isnan(score.dice)]
    mean = sum(defined) / len(defined) if defined else math.nan
    lines.append(f"{'all':<{width}}  {_number(mean)}  {found:5}  {missed:6}  {false:5}")
    if found + missed:
        share = 100 * found / (found + missed)
        lines.append(f"{found} of {found + missed} new lesions found ({share:.0f} %)")
    return "\n".join(lines)


def _number(value: float) -> str:
    return "    -" if math.isnan(value) else f"{value:5.3f}"
