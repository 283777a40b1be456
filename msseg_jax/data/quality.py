"""What may be wrong with a pair though it can be read: visits that do not match, an odd brain
mask, intensities unlike those the network was trained on."""

import math
from dataclasses import dataclass

import numpy as np

from msseg_jax.data.alignment import Alignment, measure_alignment
from msseg_jax.data.dataset import Pair
from msseg_jax.data.intensity import histogram_deviation, measure_percentiles
from msseg_jax.data.preprocess import Preprocessing, Resampled

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
    brain_ml: float
    deviations: tuple[float, float] | None  # of the visits' histograms from the landmarks
    training_deviation: float | None  # the largest among the training visits
    is_oriented: bool = True  # whether the files say which side is left

    def warnings(self) -> list[str]:
        """What a reader of the result should know, in words; empty if nothing is amiss."""
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
        elif moved > MOST_DISPLACEMENT_MM:
            found.append(
                f"The visits lie {moved:.1f} mm apart inside the brain (at most "
                f"{MOST_DISPLACEMENT_MM:.0f} mm expected): edges may look like new lesions. "
                "Register them again."
            )
        for visit, deviation in zip(("first", "second"), self.deviations or (), strict=False):
            if deviation > MOST_DEVIATION * self.training_deviation:
                found.append(
                    f"The {visit} visit's intensities are unlike those the network was trained "
                    f"on: its histogram is {deviation:.0f} % of its range away from theirs (at "
                    f"most {self.training_deviation:.0f} % among the training visits). Another "
                    "scanner or protocol? Trust the result less."
                )
        return found


def assess(
    pair: Pair, resampled: Resampled, spacing_mm: float, preprocessing: Preprocessing | None
) -> Quality:
    """Measure a pair on its isotropic grid of `spacing_mm`; without preprocessing, no histograms.

    Raises:
      IntensityError: a visit is constant inside the brain.
    """
    brain, images = resampled.brain, resampled.images
    deviations = training_deviation = None
    if preprocessing is not None:
        landmarks = np.asarray(preprocessing.landmarks)
        percentiles = preprocessing.settings.percentiles
        deviations = tuple(
            histogram_deviation(measure_percentiles(image, brain, percentiles), landmarks)
            for image in images
        )
        training_deviation = preprocessing.deviation
    return Quality(
        measure_alignment(*images, brain, np.full(3, spacing_mm)),
        float(brain.sum() * spacing_mm**3 / 1000),
        deviations,
        training_deviation,
        pair.time01.is_oriented,
    )
