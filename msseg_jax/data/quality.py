"""Check the quality of a pair, and warn about problems that do not prevent a prediction.

The visits may not be aligned, the brain mask may have an unusual size, or the intensities may
differ from those of the training patients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.intensity import histogram_deviation, measure_percentiles
from msseg_jax.data.preprocess import Preprocessing, Resampled
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.alignment import Alignment, measure_alignment
from msseg_jax.volumes.contrast import surface_to_depth
from msseg_jax.volumes.coverage import empty_warnings
from msseg_jax.volumes.lesions import voxel_mm3
from msseg_jax.volumes.order import bright_only_ml
from msseg_jax.volumes.pair import Pair

# These bounds were chosen by this project. They are based on measurements of two real pairs and
# two phantom pairs with `python -m benchmarks.alignment PATIENT_FOLDER`.
MOST_DISPLACEMENT_MM = 1.0  # these pairs have 0.1 to 0.7 mm
LEAST_CORRELATION = 0.7  # these pairs have 0.95 to 0.99; shifted by 8 mm, they have 0.2 to 0.4
# Scans of two patients, registered to each other, have up to 0.78, and pairs of one patient 0.97:
# `python -m benchmarks.two_patients SCAN SCAN`.
ONE_PATIENT_CORRELATION = 0.85
BRAIN_ML = (800.0, 2000.0)  # of adults, including cerebellum, brain stem and ventricles
SWAPPED_ML, SWAPPED_RATIO = 0.5, 3.0  # of these pairs, exchanged, one has 1.4 ml, the others 0
LEAST_SURFACE = 0.985  # FLAIRs reach 1.00 and more, a T1 0.95: `python -m benchmarks.contrast`
MOST_DEVIATION = 1.5  # times the largest deviation among the training visits

# The deviation of a visit's histogram from the landmarks, and the largest one in training.
Deviation = tuple[float, float]


@dataclass(frozen=True)
class Quality:
    """Quality measures of one pair."""

    alignment: Alignment
    brain_ml: float  # volume of the brain mask, before resampling
    deviations: tuple[Deviation, Deviation] | None  # of time01 and time02; None: no network
    is_oriented: bool = True  # whether the headers define left and right
    contradictions: tuple[str, ...] = ()  # in the headers and of the brain mask, as sentences
    empty_ml: tuple[float, float] = (0.0, 0.0)  # brain where only this visit has no data
    surface_to_depth: tuple[float, float] = (math.nan, math.nan)  # see `volumes.contrast`
    bright_only_ml: tuple[float, float] = (0.0, 0.0)  # bright only at this visit

    def warnings(self, apart: bool = True, one_patient: bool = True) -> list[str]:
        """Return warnings for the reader of the result, as sentences; an empty list if all is well.

        Args:
          apart: whether to include the warning that the visits are some mm apart.
          one_patient: whether to ask if both visits are of one patient.
        """
        found: list[str] = []
        moved, correlation = self.alignment.displacement_mm, self.alignment.correlation
        if not self.is_oriented:
            found.append(
                "The headers do not define the orientation (neither qform nor sform is set). Left "
                "and right are a guess, here and in any other program."
            )
        found += self.contradictions
        found += empty_warnings(self.empty_ml)
        low, high = BRAIN_ML
        if not low <= self.brain_ml <= high:
            found.append(
                f"The brain mask has a volume of {self.brain_ml:.0f} ml. Expected {low:.0f} to "
                f"{high:.0f} ml for an adult. Check the mask."
            )
        if math.isnan(correlation):
            found.append(
                "The alignment of the visits could not be measured, because the brain mask is too "
                "thin. Check the mask."
            )
        elif correlation < LEAST_CORRELATION:
            found.append(
                f"The visits hardly match inside the brain (correlation {correlation:.2f}, "
                f"expected at least {LEAST_CORRELATION}). Check the registration first."
            )
        elif apart and moved > MOST_DISPLACEMENT_MM:
            found.append(
                f"The visits lie {moved:.1f} mm apart inside the brain (expected at most "
                f"{MOST_DISPLACEMENT_MM:.0f} mm). Edges may look like new lesions. Register the "
                "visits again."
            )
        if one_patient and LEAST_CORRELATION <= correlation < ONE_PATIENT_CORRELATION:
            found.append(one_patient_warning(correlation))
        at_first_ml, at_second_ml = self.bright_only_ml
        if at_first_ml >= SWAPPED_ML and at_first_ml > SWAPPED_RATIO * at_second_ml:
            found.append(
                f"{at_first_ml:.1f} ml are bright only at the first visit, and {at_second_ml:.1f} "
                "ml only at the second. Are the visits swapped?"
            )
        for visit, ratio in zip(("first", "second"), self.surface_to_depth, strict=True):
            if ratio < LEAST_SURFACE:
                found.append(
                    f"The {visit} visit does not look like a FLAIR. Its cortex is {ratio:.2f} "
                    f"times as bright as its white matter (expected at least {LEAST_SURFACE}). It "
                    "may be T1-weighted, or the brain mask may be too large. Check the files and "
                    "the mask."
                )
        for visit, measured in zip(("first", "second"), self.deviations or (), strict=False):
            deviation, training_deviation = measured
            if _beyond(measured) > 0:
                found.append(
                    f"The {visit} visit's intensities differ from those of the training visits: "
                    f"its histogram deviates by {deviation:.0f} % of its range (at most "
                    f"{training_deviation:.0f} % among the training visits). The scanner or the "
                    "protocol may be different. The result is less reliable."
                )
        return found


def one_patient_warning(correlation: float) -> str:
    """Return the warning that two visits match less well than those of one patient do."""
    return (
        f"The visits match less well inside the brain than two scans of one patient usually do "
        f"(correlation of edges {correlation:.2f}, expected at least {ONE_PATIENT_CORRELATION}). "
        "Are both of one patient?"
    )


def assess(
    pair: Pair, resampled: dict[PreprocessingSettings, Resampled], fitted: Sequence[Preprocessing]
) -> Quality:
    """Measure the quality of a pair.

    The alignment is measured on the first isotropic grid, the intensities for each network.

    Args:
      resampled: the pair, resampled with the settings of each network. Without a network, the
        settings do not matter.
      fitted: preprocessing of each network. If there are several, the deviation that exceeds its
        bound the most is used. Empty: no deviations are measured.

    Raises:
      InputError: A visit is constant inside the brain.
    """
    settings, first = next(iter(resampled.items()))
    time01, time02 = first.images
    return Quality(
        measure_alignment(time01, time02, first.brain, np.full(3, settings.spacing_mm)),
        float(pair.brain.sum() * voxel_mm3(pair.time01.spacing_mm) / 1000),
        _deviations((pair.time01.path, pair.time02.path), resampled, fitted),
        pair.time01.is_oriented,
        (*pair.time01.warnings, *pair.time02.warnings, *pair.warnings),
        pair.empty_ml,
        (
            surface_to_depth(time01, first.brain, settings.spacing_mm),
            surface_to_depth(time02, first.brain, settings.spacing_mm),
        ),
        (
            bright_only_ml(time01, time02, first.brain, settings.spacing_mm),
            bright_only_ml(time02, time01, first.brain, settings.spacing_mm),
        ),
    )


def _deviations(
    paths: tuple[Path, Path],
    resampled: dict[PreprocessingSettings, Resampled],
    fitted: Sequence[Preprocessing],
) -> tuple[Deviation, Deviation] | None:
    """Return the deviations of both visits; None without a network."""
    if not fitted:
        return None

    def furthest(visit: int) -> Deviation:
        try:
            return max(
                (_deviation(resampled[one.settings], visit, one) for one in fitted), key=_beyond
            )
        except InputError as error:
            raise InputError(f"{paths[visit]}: {error} Export it again.") from error

    return furthest(0), furthest(1)


def _deviation(resampled: Resampled, visit: int, fitted: Preprocessing) -> Deviation:
    """Return the deviation of one visit (0 or 1) for one network."""
    measured = measure_percentiles(
        resampled.images[visit], resampled.brain, fitted.settings.percentiles
    )
    return histogram_deviation(measured, np.asarray(fitted.landmarks)), fitted.deviation


def _beyond(measured: Deviation) -> float:
    """Return by how much a deviation exceeds its bound; negative if it is within the bound."""
    deviation, training_deviation = measured
    return deviation - MOST_DEVIATION * training_deviation
