"""An evaluation as a page: the cohort first, then every patient with the slices that matter."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from msseg_jax.data import preprocess
from msseg_jax.data.preprocess import Preprocessing, Settings
from msseg_jax.data.quality import assess
from msseg_jax.evaluation.cohort import CONFIDENCE, Evaluation, format_number, summary_tables
from msseg_jax.evaluation.raters import PREDICTION, REFERENCE, read_masks
from msseg_jax.evaluation.scores import find_lesions
from msseg_jax.report.charts import threshold_curve, volume_scatter
from msseg_jax.report.page import Section, make_section, write_page
from msseg_jax.system.errors import InputError
from msseg_jax.system.processes import for_each
from msseg_jax.volumes.alignment import GRID_MM
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.layout import Patient, find_patients
from msseg_jax.volumes.pair import read_pair

# For the checks, where there is no model whose settings could be used.
SETTINGS = Settings(spacing_mm=GRID_MM, percentiles=(1.0, 99.0), patch_size=1)


def write_evaluation_report(
    path: Path,
    evaluation: Evaluation,
    reference: Path,
    prediction: Path,
    preprocessings: Mapping[str, Sequence[Preprocessing]] | None = None,
) -> None:
    """Scores, plots, and per patient pictures, lesions and warnings, in one HTML file.

    Args:
      reference: folder in the MSSEG-2 layout, with the visits.
      prediction: folder of <patient>.nii.gz.
      preprocessings: by patient, of the runs that predicted it; with them the visits' intensities
        are compared with those of their training.
    """
    patients = [p for p in find_patients(reference, 0) if p.name in set(evaluation.patients)]

    def section(number: int) -> Section:
        anchor = f"patient-{number + 1}"  # names may hold anything
        patient = patients[number]
        fitted = (preprocessings or {}).get(patient.name, ())
        return _section(patient, anchor, evaluation, prediction, fitted)

    sections = for_each(section, range(len(patients)), "report")

    scores = evaluation.of_prediction
    charts = [{"title": "Volume of new lesions", "uri": volume_scatter(scores)}]
    if not evaluation.curve.empty and evaluation.curve[["detected", "missed"]].to_numpy().any():
        uri = threshold_curve(evaluation.curve, evaluation.scores)
        charts.append({"title": "Sensitivity against false lesions", "uri": uri})
    by_name = {section.name: section for section in sections}
    write_page(
        path, "evaluation.html",
        reference=str(reference), prediction=str(prediction), left_out=evaluation.left_out,
        found=int(scores["detected"].sum()), total=int(scores["reference_lesions"].sum()),
        false_lesions=int((scores["rater_lesions"] - scores["confirmed"]).sum()),
        charts=charts, confidence=CONFIDENCE,
        summary=summary_tables(evaluation),
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


def _cells(row) -> list[str]:
    return [
        format_number(row.Dice, 3), format_number(row.F1_score, 3),
        str(row.detected), str(row.reference_lesions - row.detected),
        str(row.rater_lesions - row.confirmed),
        format_number(row.reference_mm3, 0), format_number(row.rater_mm3, 0),
        format_number(row.Hausdorff95_mm, 1), format_number(row.SurfaceDistance_mm, 1),
    ]  # fmt: skip


def _section(
    patient: Patient,
    anchor: str,
    evaluation: Evaluation,
    prediction: Path,
    fitted: Sequence[Preprocessing],
) -> Section:
    mask = prediction / f"{patient.name}.nii.gz"
    masks = read_masks(patient.time01.parent, mask, experts=False)
    spacing_mm = masks.spacing_mm
    lesions = {
        kind: find_lesions(masks.raters[rater], spacing_mm)[0]
        for kind, rater in (("reference", REFERENCE), ("prediction", PREDICTION))
    }
    found = evaluation.lesions
    if not found.empty:
        found = found[found["patient"] == patient.name]
    rows = {
        kind: [] if found.empty else found[found["mask"] == kind].to_dict("records")
        for kind in lesions
    }
    scores = evaluation.of_prediction.set_index("patient").loc[patient.name]
    facts = [
        (
            "Against the consensus",
            f"Dice {format_number(scores.Dice, 3)}, {scores.detected} of "
            f"{scores.reference_lesions} new lesions found, "
            f"{scores.rater_lesions - scores.confirmed} false",
        )
    ]
    try:
        pair = read_pair(patient)
        if difference := grid_difference(pair.time01, masks.consensus):
            raise InputError(difference)
        settings = [one.settings for one in fitted] or [SETTINGS]
        resampled = preprocess.resample_by_each(patient, pair, settings)
        warnings = assess(pair, resampled, fitted).warnings()
    except InputError as error:
        # Scored all the same, as the masks are in order; there is only nothing to show.
        warning = f"The visits cannot be shown: {error}"
        return Section(patient.name, anchor, [], [], [warning], 0.0, facts)
    return make_section(
        patient.name, anchor, (pair.time01.array, pair.time02.array), pair.brain, masks.affine,
        lesions, rows, warnings, facts,
    )  # fmt: skip
