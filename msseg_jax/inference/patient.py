"""From a pair to files: the mask, maps and the report of a patient, or of many."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from msseg_jax.configuration.options import Options
from msseg_jax.data.quality import MOST_DISPLACEMENT_MM, Quality
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.system.failures import continuing_after
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.lesions import CENTRE, describe_lesions, number_lesions, voxel_mm3
from msseg_jax.volumes.nifti import write_volume
from msseg_jax.volumes.pair import Pair, read_pair
from msseg_jax.volumes.volume import Volume


@dataclass(frozen=True)
class Outputs:
    """Where results go: files for one pair, folders that exist for many."""

    mask: Path
    probability: Path | None = None
    report: Path | None = None
    uncertainty: Path | None = None  # how far an ensemble's probabilities disagree
    in_middle: Path | None = None  # the mask on the pair's own grid, where `mask` is on a scanner's

    @property
    def wanted(self) -> list[Path]:
        paths = (self.mask, self.probability, self.report, self.uncertainty, self.in_middle)
        return [path for path in paths if path is not None]

    def of(self, patient: str) -> "Outputs":
        """The files of one patient in these folders."""
        return Outputs(
            self.mask / f"{patient}.nii.gz",
            self.probability and self.probability / f"{patient}.nii.gz",
            self.report and self.report / f"{patient}.html",
            self.uncertainty and self.uncertainty / f"{patient}.nii.gz",
            self.in_middle and self.in_middle / f"{patient}.nii.gz",
        )


@dataclass(frozen=True)
class Preparation:
    """How a pair came from scans, and the way back."""

    record: dict  # that lies beside the pair
    scans: tuple[Path, Path]  # of the first visit and the second
    scanner: Callable  # makes the `ScannerGrid` of the second visit, when its turn has come

    @property
    def title(self) -> str:
        """The scans, as a page's title names them."""
        return ", ".join(str(Path(*scan.resolve().parts[-2:])) for scan in self.scans)

    def warnings(self, quality: Quality) -> list[str]:
        """What to know of the pair from preparing it and from predicting on it."""
        # Both measure how far the visits lie apart; who prepared the pair knows what to look at.
        is_told = self.record["registration"]["apart_mm"] > MOST_DISPLACEMENT_MM
        return [*self.record["warnings"], *quality.warnings(apart=not is_told)]

    def facts(self) -> list[tuple[str, str]]:
        """What a report states about it."""
        return [("prepared from", " and ".join(map(str, self.scans)))]


@dataclass(frozen=True)
class NewLesions:
    """What was found, on one grid."""

    like: Volume  # of that grid
    probability: np.ndarray  # (D, H, W) float32
    mask: np.ndarray  # (D, H, W) uint8

    @staticmethod
    def of(probability: np.ndarray, options: Options, like: Volume) -> "NewLesions":
        """Of a probability map on the grid of `like`."""
        mask = lesion_mask(probability, options, voxel_mm3(like.spacing_mm))
        return NewLesions(like, probability, mask)

    def __str__(self) -> str:
        count = number_lesions(self.mask != 0)[1]
        total_mm3 = self.mask.sum() * voxel_mm3(self.like.spacing_mm)
        return f"{count} new lesion{'' if count == 1 else 's'}, {total_mm3:.0f} mm3"


def lesion_mask(probability: np.ndarray, options: Options, volume_mm3: float) -> np.ndarray:
    """Voxels above the threshold, less lesions under the least volume: (D, H, W) uint8.

    Args:
      volume_mm3: of a voxel.
    """
    mask = probability > options.threshold
    if options.min_lesion_mm3 > 0:
        least_voxels = math.ceil(options.min_lesion_mm3 / volume_mm3)
        mask = number_lesions(mask, least_voxels)[0] > 0
    return mask.astype(np.uint8)


def predict_patient(
    ensemble: Ensemble,
    patient: Patient,
    options: Options,
    outputs: Outputs,
    progress=lambda batches: batches,
    preparation: Preparation | None = None,
) -> str:
    """Write the results of one patient; says in words what was found.

    Args:
      preparation: of a pair that comes from scans; mask and maps are written on the grid of the
        second one, and the report is of that mask.

    Raises:
      InputError: for what is wrong with the input; nothing is written then.
    """
    start = time.perf_counter()
    scanner = preparation.scanner() if preparation else None
    pair = read_pair(patient)
    found = ensemble.segment(patient, pair, options, progress)
    warnings = preparation.warnings(found.quality) if preparation else found.quality.warnings()
    delivered = here = NewLesions.of(found.probability, options, pair.time01)
    if scanner is not None:
        probability = scanner.bring(found.probability, here.like.affine)
        delivered = NewLesions.of(probability, options, scanner.like)
    said = []
    if outputs.in_middle is not None:
        said.append(f"{outputs.in_middle}: {here}")
    if outputs.report is not None:
        facts = _facts(ensemble, patient, options, found.quality)
        if preparation is not None:
            about = ("mask", f"{outputs.mask}, on the second visit's own grid: {delivered}")
            other = ("mask on the pair's grid", f"{said[0]} (the grids differ, so it may, too)")
            facts = [*preparation.facts(), about, other, *facts]
        _write_report(outputs, patient, pair, delivered, warnings, facts, preparation, scanner)
    if outputs.in_middle is not None:
        write_volume(outputs.in_middle, here.mask, here.like)
    if outputs.probability is not None:
        write_volume(outputs.probability, delivered.probability, delivered.like)
    if outputs.uncertainty is not None:
        disagreement = found.disagreement
        if scanner is not None:
            disagreement = scanner.bring(disagreement, here.like.affine)
        write_volume(outputs.uncertainty, disagreement, delivered.like)
    write_volume(outputs.mask, delivered.mask, delivered.like)
    seconds = time.perf_counter() - start
    said.insert(0, f"{outputs.mask}: {delivered}, in {seconds:.1f} s")
    return "\n".join([*said, *(f"  warning: {warning}" for warning in warnings)])


def _write_report(
    outputs: Outputs,
    patient: Patient,
    pair: Pair,
    delivered: NewLesions,
    warnings: list[str],
    facts: list[tuple[str, str]],
    preparation: Preparation | None,
    scanner,
) -> None:
    """The page of the mask that is written, whatever grid that is on."""
    from msseg_jax.report.prediction import write_prediction_report

    like = delivered.like
    lesions, _ = number_lesions(delivered.mask != 0)
    rows = describe_lesions(lesions, like.affine, like.spacing_mm, delivered.probability)
    if scanner is None:
        write_prediction_report(outputs.report, patient.name, pair, lesions, rows, warnings, facts)
        return
    # The pictures are of the prepared pair: what is listed is brought there to be shown.
    centres = scanner.points_in_middle(np.array([[row[k] for k in CENTRE] for row in rows]))
    rows = [row | {"shown_at_mm": centre} for row, centre in zip(rows, centres, strict=True)]
    drawn = scanner.draw_in_middle(lesions, pair.brain.shape, pair.time01.affine)
    write_prediction_report(
        outputs.report, preparation.title, pair, drawn, rows, warnings, facts, outputs.mask
    )


def _facts(
    ensemble: Ensemble, patient: Patient, options: Options, quality: Quality
) -> list[tuple[str, str]]:
    """What a report states about how it was made."""
    mask = patient.brain_mask or "none: what is non-zero in either visit"
    alignment = quality.alignment
    facts = [
        ("first visit", str(patient.time01)),
        ("second visit", str(patient.time02)),
        ("brain mask", f"{mask} ({quality.brain_ml:.0f} ml)"),
        (
            "visits apart",
            f"{alignment.displacement_mm:.1f} mm, correlation of edges {alignment.correlation:.2f}",
        ),
        *(("model", str(member)) for member in ensemble.members),
    ]
    if len(ensemble.members) > 1:
        facts.append(("probability", f"mean of the {len(ensemble.members)} models"))
    return [
        *facts,
        ("threshold", f"probability above {options.threshold:g}"),
        ("least lesion", f"{options.min_lesion_mm3:g} mm3"),
        ("tiles", f"side {_tile_side(ensemble, options)}, overlap {options.overlap} voxels"),
    ]


def _tile_side(ensemble: Ensemble, options: Options) -> str:
    if options.tile is None:
        sides = {member.preprocessing.settings.patch_size for member in ensemble.members}
        return " and ".join(map(str, sorted(sides)))
    return f"at most {options.tile}"


def predict_patients(
    ensemble: Ensemble,
    patients: list[Patient],
    options: Options,
    outputs: Outputs,
    overwrite: bool = False,
    preparations: dict[str, Preparation] | None = None,
) -> dict[str, str]:
    """Write the results of each patient into folders, going on after one that fails.

    Args:
      preparations: {patient: of its pair}, where they come from scans.

    Returns:
      {patient: what went wrong}, empty when all went well.
    """
    failures: dict[str, str] = {}
    for patient in tqdm(patients, "patients", disable=None, leave=False):
        files = outputs.of(patient.name)
        if not overwrite and all(path.is_file() for path in files.wanted):
            tqdm.write(f"{files.mask}: done before, skipped (--overwrite does it again)")
            continue
        with continuing_after(patient.name, failures):
            preparation = (preparations or {}).get(patient.name)
            tqdm.write(predict_patient(ensemble, patient, options, files, preparation=preparation))
    return failures
