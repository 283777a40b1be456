"""Patients to measure the training with: phantoms, or a folder in the MSSEG-2 layout."""

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import TrainingSet, prepare
from msseg_jax.simulate.phantom import write_phantoms


@contextmanager
def training_patients(config: Configuration, root: Path | None, phantoms: int, cache: Path | None):
    """A `TrainingSet` of all patients of a folder.

    Args:
      root: None: so many phantoms, made with the voxels that the network sees.
      cache: where to keep what is preprocessed; None: in a folder that is deleted in the end.
    """
    with TemporaryDirectory() as temporary:
        if root is None:
            root = Path(temporary) / "patients"
            write_phantoms(root, phantoms, seed=0, spacing_mm=config.data.spacing_mm)
        cache = cache or Path(temporary) / "cache"
        settings = config.data.preprocessing
        yield prepare(root, config.model.targets, settings, HoldOut(config.seed), cache)


def describe(data: TrainingSet, root: Path | None) -> str:
    kind = "phantoms" if root is None else f"patients of {root}"
    return f"{len(data.training)} {kind}"
