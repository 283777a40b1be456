"""What both ways to predict share: places of the results, and the networks."""

import argparse
from pathlib import Path

from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.models.folds import runs_of
from msseg_jax.models.released import WEIGHTS
from msseg_jax.system.errors import InputError


def load_networks(flags: argparse.Namespace, models: list[Path]) -> tuple[Ensemble, Options]:
    """Load the networks, print which they are, and choose how they are applied.

    Args:
      models: from `models_of`.
    """
    ensemble = Ensemble(models)
    first = ensemble.members[0].network
    if flags.uncertainty is not None and len(ensemble.members) == 1:
        raise InputError(
            f"--uncertainty: {first.source} is only one network; expected several that may "
            "disagree: give two or more --model, the folder of a cross-validation, or a model file "
            "of several networks"
        )
    options = ensemble.options(
        overlap=flags.overlap, threshold=flags.threshold,
        min_lesion_mm3=flags.min_lesion_mm3, batch_size=flags.batch_size, tile=flags.tile,
    )  # fmt: skip
    if not flags.model:
        title = first.about.title if first.about else WEIGHTS
        print(
            f"no --model given: the released weights, {title} ({models[0]}); "
            "for research, not for clinical use"
        )
    for member in ensemble.members:
        print(f"model: {member}")
    return ensemble, options


def models_of(flags: argparse.Namespace) -> list[Path]:
    """Return the runs and model files that predict; without --model the released weights.

    Raises:
      InputError: a model is given twice, or there are no released weights.
    """
    return runs_of(flags.model or [Path(WEIGHTS)])
