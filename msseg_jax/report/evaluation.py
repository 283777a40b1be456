"""Write the page of an evaluation: first the cohort, then each patient with selected slices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data import preprocess
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.data.quality import assess
from msseg_jax.evaluation.cohort import (
    ANY,
    CONFIDENCE,
    Evaluation,
    format_number,
    summary_tables,
)
from msseg_jax.evaluation.raters import PREDICTION, REFERENCE, read_masks
from msseg_jax.evaluation.scores import find_lesions
from msseg_jax.report.charts import threshold_curve, volume_scatter
from msseg_jax.report.page import write_page
from msseg_jax.report.section import PatientSection, ShownLesions, add_pictures
from msseg_jax.system.errors import InputError
from msseg_jax.system.processes import for_each
from msseg_jax.volumes.alignment import GRID_MM
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.layout import Patient, find_patients
from msseg_jax.volumes.pair import read_pair

# For the quality checks if there is no model that defines these settings.
SETTINGS = PreprocessingSettings(spacing_mm=GRID_MM, percentiles=(1.0, 99.0), patch_size=1)


def write_evaluation_report(
    path: Path,
    evaluation: Evaluation,
    fitted: Mapping[str, Sequence[Preprocessing]],
) -> None:
    """Write scores, plots, and each patient's pictures, lesions and warnings into one HTML file.

    Args:
      fitted: for each patient, the preprocessing of the networks that predicted it. If it is given,
        the intensities of the visits are compared with those of the training data. May be empty.
    """
    scored = set(evaluation.patients)
    patients = [p for p in find_patients(evaluation.reference, 0) if p.name in scored]
    work = partial(_section, evaluation, fitted)
    sections = for_each(work, list(enumerate(patients, start=1)), "report")

    scores = evaluation.of_prediction
    charts = [{"title": "Volume of new lesions", "uri": volume_scatter(scores)}]
    if not evaluation.curve.empty and evaluation.curve[["detected", "missed"]].to_numpy().any():
        uri = threshold_curve(evaluation.curve, evaluation.scores)
        charts.append({"title": "Sensitivity against false lesions", "uri": uri})
    by_name = {section.name: section for section in sections}
    write_page(
        path, "evaluation.html",
        reference=str(evaluation.reference), prediction=str(evaluation.prediction),
        left_out=evaluation.left_out,
        found=int(scores["detected"].sum()), total=int(scores["reference_lesions"].sum()),
        false_lesions=int((scores["rater_lesions"] - scores["confirmed"]).sum()),
        charts=charts, confidence=CONFIDENCE,
        summary=_in_words(summary_tables(evaluation)),
        patients=[
            {
                "patient": row.patient,
                "anchor": by_name[row.patient].anchor,
                "cells": [*_cells(row), len(by_name[row.patient].warnings) or ""],
            }
            for row in scores.itertuples()
        ],
        sections=sections, with_probability=not evaluation.curve.empty,
    )  # fmt: skip


# Measures of the page in words. `Specificity` and `NPV` of voxels are left out, because they are
# 1.000 for every small lesion in a large brain. All measures are in summary.csv.
WORDS = {
    "SensL": "lesions that were found, share (SensL)",
    "PPVL": "predicted lesions that are right, share (PPVL)",
    "F1_score": "both as one number (F1)",
    "Dice": "overlap of the masks (Dice)",
    "Jaccard": "overlap of the masks (Jaccard)",
    "Sensitivity": "voxels that were found, share",
    "PPV": "predicted voxels that are right, share (PPV)",
    "RelativeVolumeError": "error of the volume, %",
    "Hausdorff95_mm": "distance of the surfaces, 95th percentile, mm",
    "SurfaceDistance_mm": "distance of the surfaces, mean, mm",
    "NbTestedLesions": "false lesions, number",
    "VolTestedLesions": "false lesions, mm3",
}
PATIENT_WORDS = {  # in the table that counts patients
    "Sensitivity": "patients with new lesions in whom a lesion was marked, share",
    "Specificity": "patients without new lesions in whom none was marked, share",
}


def _in_words(tables: list[tuple[str, list[str], list]]) -> list[tuple[str, list[str], list]]:
    """Return the tables of means with the measures of WORDS, in their order."""
    found = []
    for title, raters, rows in tables:
        words = PATIENT_WORDS if title == ANY else WORDS
        cells = dict(rows)
        kept = [(text, cells[name]) for name, text in words.items() if name in cells]
        found.append((title, raters, kept))
    return found


def _cells(row: Any) -> list[str]:
    """Return the scores of a patient as text. `row` is a row of `Evaluation.of_prediction`."""
    return [
        str(row.detected), str(row.reference_lesions - row.detected),
        str(row.rater_lesions - row.confirmed),
        format_number(row.F1_score, 2), format_number(row.Dice, 2),
        format_number(row.reference_mm3, 0), format_number(row.rater_mm3, 0),
        format_number(row.Hausdorff95_mm, 1), format_number(row.SurfaceDistance_mm, 1),
    ]  # fmt: skip


def _section(
    evaluation: Evaluation,
    fitted: Mapping[str, Sequence[Preprocessing]],
    numbered: tuple[int, Patient],
) -> PatientSection:
    """Return the section of a numbered patient, without pictures if its visits cannot be shown."""
    number, patient = numbered
    masks = read_masks(
        evaluation.reference / patient.name,
        evaluation.prediction / f"{patient.name}.nii.gz",
        experts=False,
    )
    scores = evaluation.of_prediction.set_index("patient").loc[patient.name]
    agreement = (
        f"Dice {format_number(scores.Dice, 3)}, {scores.detected} of {scores.reference_lesions} "
        f"new lesions found, {scores.rater_lesions - scores.confirmed} false"
    )
    anchor = f"patient-{number}"  # not the name, which may contain any character
    section = PatientSection(patient.name, anchor, [], [("Against the consensus", agreement)])
    try:
        pair = read_pair(patient)
        if difference := grid_difference(pair.time01, masks.consensus):
            raise InputError(difference)
        preprocessings = fitted.get(patient.name, ())
        settings = [one.settings for one in preprocessings] or [SETTINGS]
        resampled = preprocess.resample_by_each(patient, pair, settings)
        warnings = assess(pair, resampled, preprocessings).warnings()
        if patient.name in evaluation.warnings:
            warnings = [*warnings, evaluation.warnings[patient.name]]
    except InputError as error:
        # The masks are valid, so the patient keeps its scores. Only the pictures are missing.
        return replace(section, warnings=[f"The visits cannot be shown: {error}"])
    lesions = {
        kind: ShownLesions(
            find_lesions(masks.raters[rater], masks.spacing_mm)[0],
            _rows(evaluation, patient.name, kind),
        )
        for kind, rater in (("reference", REFERENCE), ("prediction", PREDICTION))
    }
    return add_pictures(replace(section, warnings=warnings), pair, lesions)


def _rows(evaluation: Evaluation, patient: str, kind: str) -> list[dict]:
    """Return the lesions of one kind that `list_lesions` has found in a patient."""
    found = evaluation.lesions
    if found.empty:
        return []
    return found[(found["patient"] == patient) & (found["mask"] == kind)].to_dict("records")
