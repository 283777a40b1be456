"""Several trained networks as one: the mean of their probabilities, and how far they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.data import preprocess
from msseg_jax.data.quality import Quality, assess
from msseg_jax.inference.forward import Progress, no_bar
from msseg_jax.inference.predictor import Predictor
from msseg_jax.models.agreed_options import agreed_options
from msseg_jax.models.networks import trained_networks
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair


@dataclass(frozen=True)
class Segmentation:
    """What an ensemble says of one pair, on the pair's own grid; 0 outside the brain."""

    probability: np.ndarray  # (D, H, W) float32, of new lesion: the mean over the members
    disagreement: np.ndarray  # (D, H, W) float32, standard deviation over the members
    quality: Quality  # how far the pair is to be trusted


class Ensemble:
    """Trained networks whose probabilities are averaged; each preprocesses in its own way."""

    def __init__(self, models: Sequence[Path | str]):
        """Load all networks of these models: folders of runs, and model files."""
        self.members = [
            Predictor(network) for model in models for network in trained_networks(model)
        ]

    def options(self, **given: float | None) -> Options:
        """Return the options of `agreed_options` for the members."""
        return agreed_options([member.network for member in self.members], given)

    def segment(
        self, patient: Patient, pair: Pair, options: Options, progress: Progress = no_bar
    ) -> Segmentation:
        """Segment a pair by every member.

        Args:
          progress: wraps the list of batches of each member, to show a bar.

        Raises:
          InputError: the brain is smaller than a patch, or a visit is constant inside it.
        """
        fitted = [member.preprocessing for member in self.members]
        resampled = preprocess.resample_by_each(patient, pair, [one.settings for one in fitted])
        mean = np.zeros(pair.brain.shape, np.float32)
        squares = np.zeros(pair.brain.shape, np.float32)
        for count, member in enumerate(self.members, start=1):
            probability = member.segment(
                patient, pair, resampled[member.preprocessing.settings], options, progress
            )
            # Welford's way: only two maps are held, however many members there are, and the mean
            # of one member is its own map to the last bit.
            difference = probability - mean
            mean += difference / count
            squares += difference * (probability - mean)
        disagreement = np.sqrt(squares / len(self.members))
        return Segmentation(mean, disagreement, assess(pair, resampled, fitted))
