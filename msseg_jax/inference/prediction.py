"""One pair from its files to its new lesions."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble, Segmentation
from msseg_jax.inference.forward import Progress, no_bar
from msseg_jax.inference.new_lesions import NewLesions, find_new_lesions
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair, read_pair


@dataclass(frozen=True)
class OnScanner:
    """The result on the second visit's own grid, for a pair that was prepared from scans."""

    scans: tuple[Path, Path]  # of the first visit and the second
    found: NewLesions
    # The pictures show the pair, so the lesions of `found` are brought to its grid:
    drawn: np.ndarray  # (D, H, W) int32, their numbers, 0 where there is none
    centres_mm: np.ndarray  # (N, 3), their centres in scanner mm (RAS) of the pair


@dataclass(frozen=True)
class Prediction:
    """The new lesions of one patient, and how they were found."""

    patient: Patient
    pair: Pair
    ensemble: Ensemble
    options: Options
    segmentation: Segmentation
    found: NewLesions  # on the pair's own grid
    warnings: list[str]  # what a reader of the result should know
    began_s: float  # by time.perf_counter()
    on_scanner: OnScanner | None = None

    @property
    def delivered(self) -> NewLesions:
        """The result that is asked for: on the scanner's grid where there is one."""
        return self.found if self.on_scanner is None else self.on_scanner.found


def predict(
    ensemble: Ensemble, patient: Patient, options: Options, progress: Progress = no_bar
) -> Prediction:
    """Read a pair and find its new lesions.

    Args:
      progress: wraps the list of batches of each member of the ensemble, to show a bar.

    Raises:
      InputError: something is wrong with the pair.
    """
    began_s = time.perf_counter()
    pair = read_pair(patient)
    segmentation = ensemble.segment(patient, pair, options, progress)
    found = find_new_lesions(
        segmentation.probability, segmentation.disagreement, options, pair.time01
    )
    warnings = segmentation.quality.warnings()
    return Prediction(patient, pair, ensemble, options, segmentation, found, warnings, began_s)
