"""Score a folder of predicted masks against a folder of reference maps."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msseg_jax.evaluation.cohort import Evaluation, summarise
from msseg_jax.evaluation.predicted import with_predicted
from msseg_jax.evaluation.raters import (
    count_over_thresholds,
    list_lesions,
    read_masks,
    score_raters,
)
from msseg_jax.system.errors import InputError
from msseg_jax.system.processes import for_each
from msseg_jax.volumes.layout import CONSENSUS, find_patients
from msseg_jax.volumes.names import LESIONS

SUFFIX = ".nii.gz"


@dataclass(frozen=True)
class ScoredFiles:
    """The files from which one patient's scores are computed."""

    name: str
    reference: Path  # folder
    prediction: Path  # mask
    probability: Path | None
    table: Path  # what `msseg predict` wrote about the lesions of the mask; may not exist


@dataclass(frozen=True)
class PatientScores:
    """The rows that one patient adds to the tables of an `Evaluation`."""

    scores: list[dict]
    lesions: list[dict]
    curve: list[dict]
    warning: str | None = None


def evaluate(
    reference: Path,
    prediction: Path,
    probability: Path | None = None,
    names: list[str] | None = None,
) -> Evaluation:
    """Score PREDICTION/<patient>.nii.gz against REFERENCE/<patient>, for each patient.

    Args:
      probability: folder of probability maps, <patient>.nii.gz. Not every patient needs one.
      names: the patients to score; None for all. Patients without a reference or a prediction, and
        patients with files that cannot be used, are listed in `left_out`.

    Raises:
      InputError: a folder is missing or empty, or no patient could be scored.
    """
    folders = {patient.name: reference / patient.name for patient in find_patients(reference, 0)}
    masks = _files_in(prediction)
    if names is None:
        names = sorted(folders.keys() | masks.keys())
    maps = {} if probability is None else _files_in(probability)
    if probability is not None and not maps.keys() & set(names):
        raise InputError(
            f"{probability}: no file in it has the name of a patient. Expected <patient>{SUFFIX}, "
            f"such as {names[0]}{SUFFIX}."
        )
    reasons: dict[str, str] = {}
    files = []
    for name in names:
        if name not in masks:
            reasons[name] = f"{prediction / (name + SUFFIX)}: no such prediction"
        elif name not in folders:
            reasons[name] = f"{reference / name / CONSENSUS}: no such reference"
        else:
            table = prediction / f"{name}{LESIONS}.csv"
            files.append(ScoredFiles(name, folders[name], masks[name], maps.get(name), table))
    scores: list[dict] = []
    lesions: list[dict] = []
    curve: list[dict] = []
    warnings: dict[str, str] = {}
    for one, result in zip(files, for_each(score_patient, files, "scores"), strict=True):
        if isinstance(result, str):
            reasons[one.name] = result
            continue
        scores += [{"patient": one.name, **row} for row in result.scores]
        lesions += [{"patient": one.name, **row} for row in result.lesions]
        curve += [{"patient": one.name, **row} for row in result.curve]
        if result.warning:
            warnings[one.name] = result.warning
    left_out = {name: reasons[name] for name in names if name in reasons}
    if not scores:
        raise InputError(
            f"no patient of {reference} could be scored:\n" + "\n".join(left_out.values())
        )
    table = pd.DataFrame(scores)
    return Evaluation(
        reference, prediction, table, pd.DataFrame(lesions), pd.DataFrame(curve),
        summarise(table), left_out, warnings,
    )  # fmt: skip


def score_patient(files: ScoredFiles) -> PatientScores | str:
    """Return the scores of one patient, or a message if its files cannot be used."""
    try:
        masks = read_masks(files.reference, files.prediction, files.probability)
    except InputError as error:
        return str(error)
    lesions, warning = with_predicted(list_lesions(masks), files.table)
    curve = count_over_thresholds(masks)
    return PatientScores(score_raters(masks), lesions, curve, warning)


def _files_in(folder: Path) -> dict[str, Path]:
    """Return the masks or probability maps in a folder: {patient: path}."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Expected a folder with <patient>{SUFFIX}.")
    files = sorted(p for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: no {SUFFIX} file in it. Expected <patient>{SUFFIX}.")
    found = {path.name.removesuffix(SUFFIX): path for path in files}
    # Next to a mask, `msseg predict` writes the same lesions with numbers.
    return {
        name: path
        for name, path in found.items()
        if not (name.endswith(LESIONS) and name.removesuffix(LESIONS) in found)
    }
