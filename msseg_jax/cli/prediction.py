"""Load the networks of `msseg predict`, with and without --prepare."""

import argparse
from pathlib import Path

from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.models.folds import runs_of
from msseg_jax.models.released import WEIGHTS
from msseg_jax.system.errors import InputError


def load_networks(flags: argparse.Namespace, models: list[Path]) -> tuple[Ensemble, Options]:
    """Load the networks, print which ones they are, and choose the options of the prediction.

    Args:
      flags: the flags of `msseg predict`.
      models: runs and model files, from `models_of`.

    Returns:
      The networks, and the options.

    Raises:
      InputError: a model cannot be read, the networks cannot be applied with these options, or
        --uncertainty is given for a single network.
    """
    ensemble = Ensemble(models)
    first = ensemble.members[0].network
    if flags.uncertainty is not None and len(ensemble.members) == 1:
        raise InputError(
            f"--uncertainty: {first.source} is only one network. Expected several, because the "
            "uncertainty is the spread of their probabilities. Give --model two or more times, or "
            "give the folder of a cross-validation or a model file with several networks."
        )
    options = ensemble.options(
        overlap=flags.overlap, threshold=flags.threshold,
        min_lesion_mm3=flags.min_lesion_mm3, batch_size=flags.batch_size, tile=flags.tile,
    )  # fmt: skip
    if not flags.model:
        title = first.about.title if first.about else WEIGHTS
        print(
            f"no --model given: using the released weights, {title} ({models[0]}); "
            "for research, not for clinical use"
        )
    for member in ensemble.members:
        print(f"model: {member}")
    return ensemble, options


def models_of(flags: argparse.Namespace) -> list[Path]:
    """Return the runs and model files of --model; without --model, the released weights.

    Raises:
      InputError: a model is given twice, or there are no released weights.
    """
    return runs_of(flags.model or [Path(WEIGHTS)])
