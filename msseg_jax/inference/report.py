"""Write the HTML report about the new lesions of one pair, for physicians."""

from pathlib import Path

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.configuration.targets import CHANGES, ENLARGING, NEW, VANISHED
from msseg_jax.evaluation.answers import SUFFIX
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.lesion_table import lesion_rows
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.prediction import Prediction
from msseg_jax.inference.unmarked import brightest_unmarked
from msseg_jax.models.reliability import LEAST_COUNT
from msseg_jax.report.checkerboard import checkerboard, picture_of
from msseg_jax.report.closeups import COLUMNS, CloseUps
from msseg_jax.report.drawn import DrawnPair
from msseg_jax.report.page import write_page
from msseg_jax.report.section import (
    Fact,
    PatientSection,
    ShownLesions,
    add_closeups,
    add_pictures,
)
from msseg_jax.report.viewer import ViewerPlace, viewer_json
from msseg_jax.volumes.names import stem

PREDICTION = "prediction"
# What the pictures call the lesions of each class.
KINDS = {CHANGES[NEW]: PREDICTION, CHANGES[ENLARGING]: "enlarging", CHANGES[VANISHED]: "vanished"}


def write_report(path: Path, prediction: Prediction, outputs: Outputs) -> None:
    """Write the lesion list, the warnings and the pictures of a prediction to one HTML file.

    The list contains the lesions of the main mask (`prediction.delivered`). If this mask is on the
    scanner's grid, the pictures still show the prepared pair, and the lesions are resampled to it.

    Args:
      path: the file to write.
      prediction: the prediction.
      outputs: paths of the masks, which the report names.
    """
    delivered, on_scanner = prediction.delivered, prediction.on_scanner
    rows = lesion_rows(prediction)
    if on_scanner is None:
        title = prediction.patient.name
        lesions = {
            KINDS[name]: ShownLesions(labels, rows[name])
            for name, labels in delivered.labels_by_class.items()
        }
    else:
        title = ", ".join(str(Path(*scan.resolve().parts[-2:])) for scan in on_scanner.scans)
        lesions = {
            KINDS[name]: ShownLesions(labels, rows[name], on_scanner.centres_mm[name])
            for name, labels in on_scanner.drawn.items()
        }
    facts = [*_facts_of_scans(prediction, outputs), *_facts(prediction)]
    section = PatientSection(title, "patient", prediction.warnings, facts)
    pair = prediction.pair
    drawn = DrawnPair.of((pair.time01.array, pair.time02.array), pair.brain, pair.time01.affine)
    draw = CloseUps(drawn)
    section = add_closeups(add_pictures(section, pair, lesions), draw, lesions)
    unmarked = brightest_unmarked(prediction, drawn)
    place = ViewerPlace(
        stem(outputs.mask), f"{stem(outputs.mask)}{SUFFIX}",
        np.eye(4) if on_scanner is None else on_scanner.to_scanner,
    )  # fmt: skip
    write_page(
        path, "prediction.html",
        section=section, columns=COLUMNS, threshold=prediction.options.threshold,
        viewer=viewer_json(
            section, drawn, pair.time01.affine, lesions, place, [one.point_mm for one in unmarked]
        ),
        unmarked=[vars(one) | {"closeups": draw.of_point(one.point_mm)} for one in unmarked],
        alignment=_alignment_in_words(prediction),
        checkerboard=checkerboard(drawn) if on_scanner is None else picture_of(on_scanner.picture),
        count=delivered.count, total_mm3=delivered.volume_mm3,
        others=_others_in_words(rows) if len(rows) > 1 else None,
        reliability=delivered.reliability, least_count=LEAST_COUNT,
        dates=None if on_scanner is None else on_scanner.dates,
        scanner_mask=None if on_scanner is None else outputs.mask,
    )  # fmt: skip


def _alignment_in_words(prediction: Prediction) -> str:
    """Return how much of the brain was searched, and how well the visits match."""
    quality = prediction.segmentation.quality
    alignment, whole_ml = quality.alignment, quality.brain_ml + sum(prediction.pair.empty_ml)
    searched = f"{quality.brain_ml:.0f} of {whole_ml:.0f} ml of the brain"
    return (
        f"{searched} were searched. The visits are displaced by {alignment.displacement_mm:.1f} "
        f"mm, and the correlation of their edges is {alignment.correlation:.2f}."
    )


def _others_in_words(rows: dict[str, list[dict]]) -> str:
    """Return the number and the volume of the lesions of each class but the new ones."""
    texts = [
        f"{len(lesions)} {name} ({sum(row['volume_mm3'] for row in lesions):.0f} mm3)"
        for name, lesions in rows.items()
        if KINDS[name] != PREDICTION
    ]
    return ", ".join(texts)


def _facts_of_scans(prediction: Prediction, outputs: Outputs) -> list[Fact]:
    """Return facts about the scans from which the pair was prepared, if it was."""
    if prediction.on_scanner is None:
        return []
    facts = [
        ("prepared from", " and ".join(map(str, prediction.on_scanner.scans))),
        ("mask", f"{outputs.mask}, on the grid of the second scan: {prediction.delivered}"),
    ]
    if outputs.in_middle is not None:
        mask = f"{outputs.in_middle}: {prediction.found}"
        facts.append(
            ("mask on the pair's grid", f"{mask} (may differ slightly, because the grids differ)")
        )
    return facts


def _facts(prediction: Prediction) -> list[Fact]:
    """Return facts about how the prediction was made."""
    patient, ensemble, options = prediction.patient, prediction.ensemble, prediction.options
    quality = prediction.segmentation.quality
    alignment = quality.alignment
    mask = patient.brain_mask or "none; the brain is where either visit is not 0"
    facts = [
        ("first visit", str(patient.time01)),
        ("second visit", str(patient.time02)),
        ("brain mask", f"{mask} ({quality.brain_ml:.0f} ml)"),
        *_not_searched(prediction),
        (
            "displacement of the visits",
            f"{alignment.displacement_mm:.1f} mm, correlation of edges {alignment.correlation:.2f}",
        ),
        *(("model", str(member)) for member in ensemble.members),
    ]
    if len(ensemble.members) > 1:
        facts.append(("probability", f"mean of the {len(ensemble.members)} models"))
    side = _patch_sides(ensemble) if options.tile is None else f"at most {options.tile}"
    return [
        *facts,
        ("threshold", f"probability above {options.threshold:g}"),
        ("smallest lesion", f"{options.min_lesion_mm3:g} mm3"),
        *_peak(options),
        ("tiles", f"side {side}, overlap {options.overlap} voxels{_mirrored(options.flips)}"),
        *_reliability(ensemble, options),
    ]


def _peak(options: Options) -> list[Fact]:
    """Return the probability that each lesion reaches somewhere, if there is such a condition."""
    if not options.min_peak:
        return []
    return [("smallest peak", f"probability {options.min_peak:g} in one voxel of a lesion")]


def _reliability(ensemble: Ensemble, options: Options) -> list[Fact]:
    """Return why the report does not state the reliability, if the model file has a table."""
    problem = ensemble.problem_with_reliability(options)
    return [("reliability of the lesions", f"not stated: {problem}")] if problem else []


def _not_searched(prediction: Prediction) -> list[Fact]:
    """Return the volumes of the brain that a visit lacks, if there are any."""
    return [
        (f"no data in the {visit} visit", f"{volume_ml:.1f} ml of the brain, not searched")
        for visit, volume_ml in zip(("first", "second"), prediction.pair.empty_ml, strict=True)
        if volume_ml > 0
    ]


def _mirrored(flips: int) -> str:
    return "" if flips == 1 else f", mean of {flips} mirror images"


def _patch_sides(ensemble: Ensemble) -> str:
    sides = {member.preprocessing.settings.patch_size for member in ensemble.members}
    return " and ".join(map(str, sorted(sides)))
