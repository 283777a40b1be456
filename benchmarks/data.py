"""Patients for the benchmarks of training: phantoms, or a folder in the MSSEG-2 layout."""

import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import TrainingSet, prepare
from msseg_jax.simulate.phantom import write_phantoms


@contextmanager
def training_patients(config: Configuration, root: Path | None, phantoms: int, cache: Path | None):
    """Yield a `TrainingSet` of all patients in a folder.

    Args:
      root: folder in the MSSEG-2 layout; None makes phantoms with the network's voxel spacing.
      phantoms: number of phantoms to make if `root` is None.
      cache: folder for the preprocessed patients; None uses a temporary one.
    """
    with TemporaryDirectory() as temporary:
        if root is None:
            root = Path(temporary) / "patients"
            write_phantoms(root, phantoms, seed=0, spacing_mm=config.data.spacing_mm)
        cache = cache or Path(temporary) / "cache"
        settings = config.data.preprocessing
        yield prepare(root, config.model.targets, settings, HoldOut(config.seed), cache)


def describe(data: TrainingSet, root: Path | None) -> str:
    """Return the number and the kind of the patients, as words."""
    kind = "phantoms" if root is None else f"patients of {root}"
    return f"{len(data.training)} {kind}"


if __name__ == "__main__":
    sys.exit(
        "benchmarks.data is not a command. It prepares the patients of benchmarks.loader and "
        "benchmarks.train. Run one of them with --help."
    )
