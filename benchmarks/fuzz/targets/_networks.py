"""Small networks with known numbers, for targets that read trained networks."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.checkpoints import Checkpoints, Progress
from msseg_jax.models.model_file import About, Beginning
from msseg_jax.models.reliability import Reliability
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import SiameseMPUNet, variable_shapes

Variables = dict[str, Any]

CONFIG = Configuration.of(
    {
        "model": {
            "widths": [3, 2], "node_convolutions": 1, "refinement_width": 2,
            "refinement_convolutions": 1, "targets": 2,
        },
        "data": {"patch_size": 8, "percentiles": [1, 50, 99]},
        "predict": {"overlap": 2},
    },
    "config",
)  # fmt: skip
PREPROCESSING = Preprocessing(
    settings=CONFIG.data.preprocessing, landmarks=(0.0, 50.0, 100.0), deviation=5.0
)
RELIABILITY = Reliability(
    above_mm3=(3.0, 30.0), above_probability=(0.5, 0.75), right=((3, 0), (1, 6)),
    marked=((10, 0), (3, 7)), threshold=0.5, min_lesion_mm3=10.0, flips=4, pairs="9 pairs",
)  # fmt: skip
OPTIMISER = {"moments": np.arange(5, dtype=np.float32)}


@cache
def shapes() -> Variables:
    """Return the shapes of the variables of the network."""
    return variable_shapes(SiameseMPUNet(CONFIG.model))


@cache
def variables(seed: int) -> Variables:
    """Return variables that depend only on the seed."""
    rng = np.random.default_rng(seed)
    flat = flatten_dict(shapes())
    return unflatten_dict(
        {name: rng.uniform(0.5, 1, leaf.shape).astype(leaf.dtype) for name, leaf in flat.items()}
    )


def write_run(
    folder: Path, checkpoints: dict[tuple[str, int], int], folds: int = 0, fold: int = 0
) -> None:
    """Write the folder of a run.

    Args:
      checkpoints: {(kind, step): seed of the variables}.
      folds, fold: of the cross-validation to which the run belongs; 0: none.
    """
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    config = CONFIG.with_data(folds=folds, fold=fold)
    _write_json(run.config_file, config.model_dump(mode="json"))
    PREPROCESSING.save(run.preprocessing_file)
    _write_json(run.split_file, {"training": {"a": "0" * 16}, "validation": {"b": "1" * 16}})
    beginning = Beginning(network="released", about=About(name="n", licence="CC-BY"))
    _write_json(run.initial_file, beginning.model_dump(mode="json"))
    run.log_file.write_text('{"step": 2, "loss": 0.5}\n', encoding="utf-8")
    for (kind, step), seed in checkpoints.items():
        with Checkpoints(run.checkpoints / kind, keep=3) as place:
            place.save(step, variables(seed), OPTIMISER, Progress(best_dice=0.5, validated=step))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def are_equal(one: Variables, other: Variables) -> bool:
    """Return whether two trees have exactly the same numbers."""
    same = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), one, other)
    return all(jax.tree.leaves(same))
