"""Prepare pairs from scans, predict them, and bring the result to the grid of the second scan.

This module needs the optional libraries of `msseg prepare`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.configuration.options import Options
from msseg_jax.data.quality import MOST_DISPLACEMENT_MM, ONE_PATIENT_CORRELATION, Quality
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.forward import Progress, no_bar
from msseg_jax.inference.new_lesions import NewLesions
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.patients import Tally, Task, predict_each
from msseg_jax.inference.prediction import OnScanner, Prediction, predict
from msseg_jax.inference.record import new_record
from msseg_jax.prepare.folder import PICTURE, TO_ATLAS, TRANSFORMS
from msseg_jax.prepare.patient import prepare_patient
from msseg_jax.prepare.record import PairRecord
from msseg_jax.prepare.regions import Regions
from msseg_jax.prepare.request import Request
from msseg_jax.prepare.scanner_grid import ScannerGrid
from msseg_jax.prepare.visit_facts import describe_dates
from msseg_jax.volumes.layout import patient_in
from msseg_jax.volumes.lesions import CENTRE, voxels_by_number
from msseg_jax.volumes.pair import Pair


@dataclass(frozen=True)
class ScanPair:
    """Two scans, and the pair that was prepared from them."""

    request: Request
    folder: Path  # folder of the prepared pair
    record: PairRecord  # record of the preparation
    was_there: bool = False  # if True, an earlier run prepared it


def prepare_pair(
    request: Request,
    folder: Path,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda step: None,
) -> ScanPair:
    """Prepare a pair in a folder, unless this was done before.

    Args:
      request: the scans, and how to prepare them.
      folder: folder for the prepared pair.
      overwrite: prepare the pair again if this was done before.
      say: is called with the name of each step.

    Raises:
      InputError: the scans cannot be prepared. Nothing is written.
    """
    prepared = prepare_patient(request, folder, overwrite, say)
    return ScanPair(request, folder, prepared.record, prepared.was_there)


def predict_scan_pair(
    ensemble: Ensemble, scans: ScanPair, options: Options, progress: Progress = no_bar
) -> Prediction:
    """Find the new lesions of a prepared pair, and bring them to the grid of the second scan."""
    # Read the grid before the prediction. The files may be damaged, and the prediction takes long.
    request = scans.request
    grid = ScannerGrid.of(scans.folder, request.time02, request.choice(1))
    prediction = predict(ensemble, patient_in(scans.folder), options, progress)
    return bring_to_scanner(prediction, scans, grid)


def predict_scan_pairs(
    ensemble: Ensemble,
    requests: Sequence[tuple[Request, Path]],
    options: Options,
    outputs: Outputs,
    overwrite: bool = False,
) -> Tally:
    """Prepare and predict each pair, and write its results to folders. Continue if one fails.

    Args:
      ensemble: the networks.
      requests: for each pair, how to prepare it, and its folder, which is named after the patient.
      options: options of the prediction.
      outputs: folders for the results.
      overwrite: prepare pairs and predict patients again if this was done before.
    """

    def begin(item: tuple[Request, Path], files: Outputs) -> Task:
        scans = prepare_pair(*item, overwrite)
        patient = patient_in(scans.folder)
        record = new_record(ensemble, options, patient, files, scans.record.asked_for)
        return Task(record, lambda: predict_scan_pair(ensemble, scans, options))

    items = {folder.name: (request, folder) for request, folder in requests}
    return predict_each(items, outputs, begin, overwrite)


def bring_to_scanner(prediction: Prediction, scans: ScanPair, grid: ScannerGrid) -> Prediction:
    """Return a prediction with its result also on the grid of the second scan.

    All maps are interpolated, and masks are computed from the interpolated probabilities. The
    warnings of the preparation are added to those of the prediction.
    """
    pair, segmentation = prediction.pair, prediction.segmentation
    affine = pair.time01.affine
    maps = np.empty((len(segmentation.maps), *grid.like.array.shape), np.float32)
    for there, here in zip(maps, segmentation.maps, strict=True):
        there[:] = grid.bring(here, affine)
    disagreement = grid.bring(segmentation.disagreement, affine)
    found = NewLesions(
        grid.like, maps, disagreement, prediction.options, prediction.found.reliability
    )
    drawn = {
        name: grid.draw_in_middle(labels, pair.brain.shape, affine)
        for name, labels in found.labels_by_class.items()
    }
    counts = {name: len(rows) for name, rows in found.rows_by_class.items()}
    on_scanner = OnScanner(
        (scans.request.time01, scans.request.time02),
        found,
        drawn,
        {
            name: grid.points_in_middle(np.array([[row[k] for k in CENTRE] for row in rows]))
            for name, rows in found.rows_by_class.items()
        },
        grid.slice_numbers,
        grid.to_scan(),
        _regions(scans.folder, pair, drawn, counts),
        scans.folder / PICTURE,
        scans.record.asked_for,
        describe_dates(scans.record.time01.acquired_on, scans.record.time02.acquired_on),
    )
    warnings = warnings_of(scans.record, segmentation.quality)
    return replace(prediction, on_scanner=on_scanner, warnings=warnings)


def _regions(
    folder: Path, pair: Pair, drawn: dict[str, np.ndarray], counts: dict[str, int]
) -> dict[str, list[tuple[str, str]]] | None:
    """Return the region of each lesion and a caution, by class.

    None if the folder has no transform to the atlas: the user gave the brain masks, or an earlier
    version prepared the pair.

    Args:
      folder: folder of the prepared pair.
      pair: the pair.
      drawn: the numbered lesions of each class on the grid of the pair.
      counts: the number of lesions of each class.
    """
    path = folder / TRANSFORMS / TO_ATLAS
    if not path.is_file():
        return None
    regions = Regions(pair, sitk.ReadTransform(str(path)))
    found = {}
    for name, labels in drawn.items():
        voxels = voxels_by_number(labels)
        found[name] = [("", "")] * counts[name]  # stays for a lesion that was lost when resampled
        for number, places in voxels.items():
            region = regions.of(places)
            found[name][number - 1] = (region.name, region.caution)
    return found


def warnings_of(record: PairRecord, quality: Quality) -> list[str]:
    """Return the warnings of the preparation and of the prediction of a pair.

    Args:
      record: record of the preparation.
      quality: quality measures of the prepared pair.
    """
    # Preparation and prediction both measure how well the visits match. If the preparation warns,
    # the warning of the prediction is left out.
    registration = record.registration
    apart = registration.apart_mm <= MOST_DISPLACEMENT_MM
    one_patient = registration.edges_correlation >= ONE_PATIENT_CORRELATION
    # Both find the same parts without data, and other faults of the files. Each is said once.
    return list(dict.fromkeys([*record.warnings, *quality.warnings(apart, one_patient)]))
