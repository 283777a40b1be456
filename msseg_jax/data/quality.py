"""What may be wrong with a pair that can be read.

The visits may not match, the brain mask may have an odd size, or the intensities may be unlike
those on which the network was trained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.intensity import histogram_deviation, measure_percentiles
from msseg_jax.data.preprocess import Preprocessing, Resampled
from msseg_jax.volumes.alignment import Alignment, measure_alignment
from msseg_jax.volumes.lesions import voxel_mm3
from msseg_jax.volumes.pair import Pair

# This project chose the bounds by the pairs on which it was tried, two real ones and two phantoms:
# `python -m benchmarks.alignment PATIENT_FOLDER`.
MOST_DISPLACEMENT_MM = 1.0  # these pairs have 0.1 to 0.7 mm
LEAST_CORRELATION = 0.7  # these pairs have 0.95 to 0.99, and shifted by 8 mm 0.2 to 0.4
BRAIN_ML = (800.0, 2000.0)  # adults, with cerebellum, brain stem and ventricles
MOST_DEVIATION = 1.5  # times that of the training visit furthest from the landmarks

# How far the histogram of a visit is from the landmarks, and that of the furthest training visit.
Deviation = tuple[float, float]


@dataclass(frozen=True)
class Quality:
    """Measures of one pair."""

    alignment: Alignment
    brain_ml: float  # of the mask as it is in its file
    deviations: tuple[Deviation, Deviation] | None  # of time01 and time02; None: no network
    is_oriented: bool = True  # whether the files say which side is left

    def warnings(self, apart: bool = True) -> list[str]:
        """Return what a reader of the result should know, in words; empty if all is well.

        Args:
          apart: whether to say, too, that the visits lie some mm apart.
        """
        found: list[str] = []
        moved, correlation = self.alignment.displacement_mm, self.alignment.correlation
        if not self.is_oriented:
            found.append(
                "The files do not say how the patient lies (neither qform nor sform is set): left "
                "and right are a guess, here and everywhere else."
            )
        low, high = BRAIN_ML
        if not low <= self.brain_ml <= high:
            found.append(
                f"The brain mask holds {self.brain_ml:.0f} ml; an adult's brain has {low:.0f} to "
                f"{high:.0f} ml. Look at the mask."
            )
        if math.isnan(correlation):
            found.append(
                "Whether the visits lie on each other could not be measured: the brain mask is "
                "too thin. Look at the mask."
            )
        elif correlation < LEAST_CORRELATION:
            found.append(
                f"The visits hardly match inside the brain: correlation {correlation:.2f} (at "
                f"least {LEAST_CORRELATION} expected). Look at the registration before anything "
                "else."
            )
        elif apart and moved > MOST_DISPLACEMENT_MM:
            found.append(
                f"The visits lie {moved:.1f} mm apart inside the brain (at most "
                f"{MOST_DISPLACEMENT_MM:.0f} mm expected): edges may look like new lesions. "
                "Register them again."
            )
        for visit, measured in zip(("first", "second"), self.deviations or (), strict=False):
            deviation, training_deviation = measured
            if _beyond(measured) > 0:
                found.append(
                    f"The {visit} visit's intensities are unlike those the network was trained "
                    f"on: its histogram is {deviation:.0f} % of its range away from theirs (at "
                    f"most {training_deviation:.0f} % among the training visits). Another "
                    "scanner or protocol? Trust the result less."
                )
        return found


def assess(
    pair: Pair, resampled: dict[PreprocessingSettings, Resampled], fitted: Sequence[Preprocessing]
) -> Quality:
    """Measure a pair: its alignment on the first isotropic grid, its intensities for each network.

    Args:
      resampled: the pair by the settings of each network, or by any settings without a network.
      fitted: preprocessing of the networks. Of several, the one furthest beyond its bound counts.
        Empty: no histograms.

    Raises:
      InputError: A visit is constant inside the brain.
    """
    settings, first = next(iter(resampled.items()))
    time01, time02 = first.images
    return Quality(
        measure_alignment(time01, time02, first.brain, np.full(3, settings.spacing_mm)),
        float(pair.brain.sum() * voxel_mm3(pair.time01.spacing_mm) / 1000),
        _deviations(resampled, fitted),
        pair.time01.is_oriented,
    )


def _deviations(
    resampled: dict[PreprocessingSettings, Resampled], fitted: Sequence[Preprocessing]
) -> tuple[Deviation, Deviation] | None:
    """Return the deviations of both visits; None if there is no network."""
    if not fitted:
        return None

    def furthest(visit: int) -> Deviation:
        return max((_deviation(resampled[one.settings], visit, one) for one in fitted), key=_beyond)

    return furthest(0), furthest(1)


def _deviation(resampled: Resampled, visit: int, fitted: Preprocessing) -> Deviation:
    """Return the deviation of a visit, 0 or 1, for one network."""
    measured = measure_percentiles(
        resampled.images[visit], resampled.brain, fitted.settings.percentiles
    )
    return histogram_deviation(measured, np.asarray(fitted.landmarks)), fitted.deviation


def _beyond(measured: Deviation) -> float:
    """Return how far a deviation lies beyond its bound; below 0 if it is within."""
    deviation, training_deviation = measured
    return deviation - MOST_DEVIATION * training_deviation
