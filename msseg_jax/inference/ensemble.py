"""Several trained networks as one: the mean of their probabilities, and how far they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.data import preprocess
from msseg_jax.data.quality import Quality, assess
from msseg_jax.inference.predictor import Predictor
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair

if TYPE_CHECKING:
    from msseg_jax.models.model_file import TrainedNetwork  # which imports JAX


@dataclass(frozen=True)
class Segmentation:
    """What an ensemble says of one pair, on the pair's own grid; 0 off the brain."""

    probability: np.ndarray  # (D, H, W) float32, of new lesion: the mean over the members
    disagreement: np.ndarray  # (D, H, W) float32, standard deviation over the members
    quality: Quality  # how far the pair is to be trusted


class Ensemble:
    """Trained networks whose probabilities are averaged; each preprocesses in its own way."""

    def __init__(self, models: Sequence[Path | str]):
        """Of all networks in these models: folders of runs, and model files."""
        from msseg_jax.models.networks import trained_networks  # which imports JAX; see `Predictor`

        self.members = [
            Predictor(network) for model in models for network in trained_networks(model)
        ]

    @classmethod
    def of(cls, networks: Sequence["TrainedNetwork"]) -> "Ensemble":
        """Of networks that are loaded already."""
        ensemble = cls([])
        ensemble.members = [Predictor(network) for network in networks]
        return ensemble

    def options(self, **given) -> Options:
        """The first network's own options, but for those given (those that are None are not).

        Raises:
          InputError: the networks have different ones where they must be of one mind; or a member
            cannot work with these.
        """
        given = {name: value for name, value in given.items() if value is not None}
        first = self.members[0]
        for name in ("threshold", "min_lesion_mm3"):  # of the mean, so they are nobody's own
            for member in self.members[1:]:
                own = [getattr(one.options, name) for one in (first, member)]
                if name not in given and own[0] != own[1]:
                    sources = [one.network.source for one in (first, member)]
                    raise InputError(
                        f"--{name}: {sources[0]} has {own[0]:g}, {sources[1]} has {own[1]:g}; "
                        f"wanted one for the mean of their probabilities: give --{name}"
                    )
        options = replace(first.options, **given)
        for member in self.members:
            _check(member, options)
        return options

    def segment(
        self, patient: Patient, pair: Pair, options: Options, progress=lambda batches: batches
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
            # Welford's way: two maps are held, however many members there are, and the mean of one
            # is that one to the last bit.
            difference = probability - mean
            mean += difference / count
            squares += difference * (probability - mean)
        disagreement = np.sqrt(squares / len(self.members))
        return Segmentation(mean, disagreement, assess(pair, resampled, fitted))


def _check(member: Predictor, options: Options) -> None:
    """Raises InputError for tiles that a network cannot take."""
    side = member.preprocessing.settings.patch_size
    if options.tile is not None and (options.tile < side or options.tile % member.side_multiple):
        raise InputError(
            f"--tile is {options.tile}; wanted {side} (the model's patch size) or more, and a "
            f"multiple of {member.side_multiple}, for {member.network.source}"
        )
    if options.overlap >= side:
        raise InputError(
            f"--overlap is {options.overlap}; wanted 0 to {side - 1} voxels, less than the side of "
            f"the patches of {member.network.source}"
        )
