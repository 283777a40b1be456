"""What may be wrong with a pair though it can be read: visits that do not match, an odd brain
mask, intensities unlike those the network was trained on."""

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

# Bounds of this project's own choosing, from the pairs it was tried with: two real ones and two
# phantoms, `python -m benchmarks.alignment PATIENT_FOLDER`.
MOST_DISPLACEMENT_MM = 1.0  # as they are, 0.1 to 0.7 mm
LEAST_CORRELATION = 0.7  # as they are, 0.95 to 0.99; shifted by 8 mm, 0.2 to 0.4
BRAIN_ML = (800.0, 2000.0)  # adults, with cerebellum, brain stem and ventricles
MOST_DEVIATION = 1.5  # times that of the training visit furthest from the landmarks


@dataclass(frozen=True)
class Quality:
    """Measures of one pair."""

    alignment: Alignment
    brain_ml: float  # of the mask as its file has it
    # Per visit: of its histogram from the landmarks, and the largest of any training visit's.
    deviations: tuple[tuple[float, float], tuple[float, float]] | None
    is_oriented: bool = True  # whether the files say which side is left

    def warnings(self, apart: bool = True) -> list[str]:
        """What a reader of the result should know, in words; empty if nothing is amiss.

        Args:
          apart: say, too, that the visits lie some mm apart.
        """
        found = []
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
    """Measure a pair's alignment on the first of its isotropic grids, and its intensities for each
    network.

    Args:
      resampled: the pair by the settings of each network, or by any where there is no network.
      fitted: preprocessing of the networks; where several would warn, the one furthest from its
        training is heard. Empty: no histograms.

    Raises:
      InputError: a visit is constant inside the brain.
    """
    settings, first = next(iter(resampled.items()))
    by_network = [_deviations(resampled[one.settings], one) for one in fitted]
    return Quality(
        measure_alignment(*first.images, first.brain, np.full(3, settings.spacing_mm)),
        float(pair.brain.sum() * voxel_mm3(pair.time01.spacing_mm) / 1000),
        tuple(max(visit, key=_beyond) for visit in zip(*by_network, strict=True)) or None,
        pair.time01.is_oriented,
    )


def _deviations(resampled: Resampled, fitted: Preprocessing) -> list[tuple[float, float]]:
    """`Quality.deviations` of one network."""
    landmarks = np.asarray(fitted.landmarks)
    return [
        (
            histogram_deviation(
                measure_percentiles(image, resampled.brain, fitted.settings.percentiles), landmarks
            ),
            fitted.deviation,
        )
        for image in resampled.images
    ]


def _beyond(measured: tuple[float, float]) -> float:
    """How far a visit's deviation lies beyond what is warned of; below 0 where it does not."""
    deviation, training_deviation = measured
    return deviation - MOST_DEVIATION * training_deviation
