"""Score the predicted masks of a folder against its reference maps."""

from pathlib import Path

import pandas as pd

from msseg_jax.evaluation.cohort import Evaluation, summarise
from msseg_jax.evaluation.raters import (
    count_over_thresholds,
    list_lesions,
    read_masks,
    score_raters,
)
from msseg_jax.system.errors import InputError
from msseg_jax.system.processes import for_each
from msseg_jax.volumes.layout import CONSENSUS, find_patients

SUFFIX = ".nii.gz"


def evaluate(
    reference: Path,
    prediction: Path,
    probability: Path | None = None,
    names: list[str] | None = None,
) -> Evaluation:
    """Score PREDICTION/<patient>.nii.gz against REFERENCE/<patient>, for each patient there is.

    Args:
      probability: folder of <patient>.nii.gz, probability maps; some patients may lack one.
      names: the patients to score; None for all, and then patients that one side lacks are
        reported in `left_out`, as those are whose files cannot be used.

    Raises:
      InputError: a folder is missing or empty, or no patient at all could be scored.
    """
    folders = {patient.name: reference / patient.name for patient in find_patients(reference, 0)}
    masks = _files_in(prediction)
    if names is None:
        names = sorted(folders.keys() | masks.keys())
    maps = {} if probability is None else _files_in(probability)
    if probability is not None and not maps.keys() & set(names):
        raise InputError(
            f"{probability}: no file in it is called as a patient is; wanted <patient>{SUFFIX}, "
            f"such as {names[0]}{SUFFIX}"
        )

    def score(name: str) -> tuple[str, tuple | str]:
        if name not in masks:
            return name, f"{prediction / (name + SUFFIX)}: no such prediction"
        if name not in folders:
            return name, f"{reference / name / CONSENSUS}: no such reference"
        try:
            patient = read_masks(folders[name], masks[name], maps.get(name))
        except InputError as error:
            return name, str(error)
        return name, (score_raters(patient), list_lesions(patient), count_over_thresholds(patient))

    rows, left_out = ([], [], []), {}
    for name, result in for_each(score, names, "scores"):
        if isinstance(result, str):
            left_out[name] = result
            continue
        for table, part in zip(rows, result, strict=True):
            table += [{"patient": name, **row} for row in part]
    if not rows[0]:
        raise InputError(
            f"no patient of {reference} could be scored:\n" + "\n".join(left_out.values())
        )
    scores, lesions, curve = (pd.DataFrame(table) for table in rows)
    return Evaluation(scores, lesions, curve, summarise(scores), left_out)


def _files_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; wanted one with <patient>{SUFFIX}")
    files = sorted(p for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: no {SUFFIX} file in it; wanted <patient>{SUFFIX}")
    return {path.name.removesuffix(SUFFIX): path for path in files}
