"""Apply several trained networks to a pair: average the probabilities, and measure their spread."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.configuration.targets import LESIONS01, LESIONS02, VANISHED, map_names
from msseg_jax.data import preprocess
from msseg_jax.data.quality import Quality, assess
from msseg_jax.inference.forward import Progress, no_bar
from msseg_jax.inference.predictor import Predictor
from msseg_jax.models.agreed_options import agreed_options
from msseg_jax.models.model_file import is_model_file
from msseg_jax.models.network_digest import network_digest
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.reliability import Reliability
from msseg_jax.system.words import count_of
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair

logger = logging.getLogger(__name__)

# The last map that each optional output needs.
NEEDED = {"changes": VANISHED, "lesions01": LESIONS01, "lesions02": LESIONS02}


@dataclass(frozen=True)
class Segmentation:
    """The result of an ensemble, on the grid of the pair. The maps are 0 outside the brain."""

    maps: np.ndarray  # (T, D, H, W) float32, probabilities, mean of the members
    disagreement: np.ndarray  # (D, H, W) float32, standard deviation of the first over the members
    quality: Quality  # quality measures of the pair

    @property
    def probability(self) -> np.ndarray:
        """The first map, the probability of new lesion: (D, H, W) float32."""
        return self.maps[0]


class Ensemble:
    """Trained networks. Their probabilities are averaged; each has its own preprocessing."""

    def __init__(self, models: Sequence[Path | str]):
        """Load all networks of these models.

        Args:
          models: folders of runs, and model files.
        """
        self.members: list[Predictor] = []
        self.titles: dict[Path, str] = {}  # names and versions of the model files
        self._tables: list[Reliability | None] = []  # of each model
        for model in map(Path, models):
            networks = trained_networks(model)
            self.members += map(Predictor, networks)
            self._tables.append(networks[0].reliability)
            if is_model_file(model) and networks[0].about:
                self.titles[model] = networks[0].about.title

    @property
    def map_count(self) -> int:
        """The number of maps that all members give. The first shows the new lesions."""
        return min(member.map_count for member in self.members)

    def problem_with(self, output: str) -> str | None:
        """Return why the members do not give an output, or None if they do.

        Args:
          output: 'changes', 'lesions01' or 'lesions02'.
        """
        least = NEEDED[output] + 1
        lacking = next((member for member in self.members if member.map_count < least), None)
        if lacking is None:
            return None
        names = ", ".join(map_names(lacking.map_count, "changes"))
        return (
            f"{lacking.network.source} gives only {count_of(lacking.map_count, 'map')}: {names}. "
            f"Expected at least {least}: {', '.join(map_names(least, 'changes'))}. Use a model "
            f"that was trained with config.model.target_set 'changes' and config.model.targets "
            f"{least} or more."
        )

    @cached_property
    def digests(self) -> list[str]:
        """A digest of each member; see `network_digest`."""
        return [network_digest(member.network) for member in self.members]

    def options(self, **given: float | None) -> Options:
        """Return the options of the members, updated with those given; see `agreed_options`."""
        return agreed_options([member.network for member in self.members], given)

    def reliability_with(self, options: Options) -> Reliability | None:
        """Return the reliability table of the model file, if it holds for these options."""
        return None if self.problem_with_reliability(options) else self._tables[0]

    def problem_with_reliability(self, options: Options) -> str | None:
        """Return why the table of a model file does not hold; None if it does, or there is none."""
        tables = [table for table in self._tables if table is not None]
        if not tables:
            return None
        if len(self._tables) > 1:
            return "the table of a model file does not hold for its mean with another model"
        return tables[0].mismatch(options)

    def segment(
        self, patient: Patient, pair: Pair, options: Options, progress: Progress = no_bar
    ) -> Segmentation:
        """Segment a pair with every member. Log warnings about the pair before that.

        Args:
          progress: wraps the list of batches of each member, to show a progress bar.

        Raises:
          InputError: the brain is smaller than a patch, or a visit is constant inside it.
        """
        fitted = [member.preprocessing for member in self.members]
        resampled = preprocess.resample_by_each(patient, pair, [one.settings for one in fitted])
        # Before the networks, which take long. The reader can stop a run that makes no sense.
        quality = assess(pair, resampled, fitted)
        for warning in quality.warnings():
            if warning not in quality.contradictions:  # those were logged when the pair was read
                logger.warning("%s: %s", patient.name, warning)
        means = np.zeros((self.map_count, *pair.brain.shape), np.float32)
        squares = np.zeros(pair.brain.shape, np.float32)
        for count, member in enumerate(self.members, start=1):
            maps = member.segment(
                patient, pair, resampled[member.preprocessing.settings], options, progress
            )
            # Welford's algorithm keeps only means and squares in memory for any number of members.
            # With one member, the mean is exactly that member's map. A member may give more maps.
            for number, (mean, probability) in enumerate(zip(means, maps, strict=False)):
                difference = probability - mean
                mean += difference / count
                if number == 0:
                    squares += difference * (probability - mean)
        disagreement = np.sqrt(squares / len(self.members))
        return Segmentation(means, disagreement, quality)
