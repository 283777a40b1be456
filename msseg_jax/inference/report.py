"""Write the HTML report about the new lesions of one pair, for physicians."""

from pathlib import Path

from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.prediction import Prediction
from msseg_jax.report.page import write_page
from msseg_jax.report.section import Fact, PatientSection, ShownLesions, add_pictures


def write_report(path: Path, prediction: Prediction, outputs: Outputs) -> None:
    """Write the lesion list, the warnings and the pictures of a prediction to one HTML file.

    The list contains the lesions of the main mask (`prediction.delivered`). If this mask is on the
    scanner's grid, the pictures still show the prepared pair, and the lesions are resampled to it.

    Args:
      path: the file to write.
      prediction: the prediction.
      outputs: paths of the masks, which the report names.
    """
    rows, on_scanner = prediction.delivered.rows, prediction.on_scanner
    if on_scanner is None:
        title = prediction.patient.name
        lesions = ShownLesions(prediction.found.labels, rows)
    else:
        title = ", ".join(str(Path(*scan.resolve().parts[-2:])) for scan in on_scanner.scans)
        lesions = ShownLesions(on_scanner.drawn, rows, on_scanner.centres_mm)
    facts = [*_facts_of_scans(prediction, outputs), *_facts(prediction)]
    section = PatientSection(title, "patient", prediction.warnings, facts)
    write_page(
        path, "prediction.html",
        section=add_pictures(section, prediction.pair, {"prediction": lesions}),
        total_mm3=sum(row["volume_mm3"] for row in rows),
        dates=None if on_scanner is None else on_scanner.dates,
        scanner_mask=None if on_scanner is None else outputs.mask,
    )  # fmt: skip


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
        ("tiles", f"side {side}, overlap {options.overlap} voxels"),
    ]


def _not_searched(prediction: Prediction) -> list[Fact]:
    """Return the volumes of the brain that a visit lacks, if there are any."""
    return [
        (f"no data in the {visit} visit", f"{volume_ml:.1f} ml of the brain, not searched")
        for visit, volume_ml in zip(("first", "second"), prediction.pair.empty_ml, strict=True)
        if volume_ml > 0
    ]


def _patch_sides(ensemble: Ensemble) -> str:
    sides = {member.preprocessing.settings.patch_size for member in ensemble.members}
    return " and ".join(map(str, sorted(sides)))
