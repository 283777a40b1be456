"""Read one pair and find its new lesions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble, Segmentation
from msseg_jax.inference.forward import Progress, no_bar
from msseg_jax.inference.new_lesions import NewLesions
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair, read_pair


@dataclass(frozen=True)
class OnScanner:
    """The result on the grid of the second scan, for a pair that was prepared from scans."""

    scans: tuple[Path, Path]  # scans of the first and the second visit
    found: NewLesions
    # The pictures of the report show the pair, so they need the lesions of `found` on its grid, by
    # the name of their class.
    drawn: dict[str, np.ndarray]  # (D, H, W) int32, numbers of the lesions, 0 elsewhere
    centres_mm: dict[str, np.ndarray]  # (N, 3), centres in scanner mm (RAS) of the pair
    slice_numbers: tuple[int, ...]  # of the second scan's DICOM series; empty if not known
    to_scanner: np.ndarray  # (4, 4), mm of the pair to mm of the second scan, both RAS
    # (region, caution) of each lesion by class; None if the atlas was not aligned with the brain
    regions: dict[str, list[tuple[str, str]]] | None
    picture: Path  # of the preparation, which shows the alignment
    asked_for: dict[str, Any]  # what the pair was prepared from, for the record
    dates: str | None = None  # dates of the visits and their interval in words, if they are known


@dataclass(frozen=True)
class Prediction:
    """The new lesions of one patient, with everything from which they were found."""

    patient: Patient
    pair: Pair
    ensemble: Ensemble
    options: Options
    segmentation: Segmentation
    found: NewLesions  # on the grid of the pair
    warnings: list[str]  # for the reader of the result
    on_scanner: OnScanner | None = None

    @property
    def delivered(self) -> NewLesions:
        """The result for the user: on the scanner's grid if the pair was prepared from scans."""
        return self.found if self.on_scanner is None else self.on_scanner.found


def predict(
    ensemble: Ensemble, patient: Patient, options: Options, progress: Progress = no_bar
) -> Prediction:
    """Read a pair and find its new lesions.

    Args:
      progress: wraps the list of batches of each member of the ensemble, to show a progress bar.

    Raises:
      InputError: the pair cannot be used.
    """
    return predict_pair(ensemble, patient, read_pair(patient), options, progress)


def predict_pair(
    ensemble: Ensemble,
    patient: Patient,
    pair: Pair,
    options: Options,
    progress: Progress = no_bar,
) -> Prediction:
    """Find the new lesions of a pair that has already been read.

    Args:
      patient: names the pair in messages and in the report.
      progress: as for `predict`.

    Raises:
      InputError: the pair cannot be used.
    """
    segmentation = ensemble.segment(patient, pair, options, progress)
    found = NewLesions(
        pair.time01, segmentation.maps, segmentation.disagreement, options,
        ensemble.reliability_with(options),
    )  # fmt: skip
    warnings = segmentation.quality.warnings()
    return Prediction(patient, pair, ensemble, options, segmentation, found, warnings)
