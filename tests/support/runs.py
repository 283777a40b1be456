"""Small runs: make them, train them, and read what they store.

The tests change configurations in the form of a ConfigDict, as configuration files do. These
functions convert it to typed sections.
"""

import json
import warnings
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from msseg_jax.configuration.files import typed
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.checkpoints import Checkpoints, Progress
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import SiameseMPUNet, initial_variables
from msseg_jax.training.batches import check_patients, prepare_data
from msseg_jax.training.devices import AXIS, check_batch_size
from msseg_jax.training.log import TrainingLog
from msseg_jax.training.loop import train
from msseg_jax.training.step import TrainState, create_state
from msseg_jax.training.store import Store
from msseg_jax.training.warm_start import initial_network


def build_model(
    config: ConfigDict, axis_name: str | None = None, compute_dtype: str = "float32"
) -> SiameseMPUNet:
    """Return the network of a configuration."""
    return SiameseMPUNet(typed(config).model, axis_name, compute_dtype)


def with_random_output(variables: dict) -> dict:
    """Replace the output kernel, which is zero in an untrained network, by random numbers."""
    output = variables["params"]["refinement"]["output"]
    random = np.random.default_rng(1).normal(size=output["kernel"].shape)
    output["kernel"] = random.astype(np.float32)
    return variables


def save_run(folder: Path, config: ConfigDict, seed: int = 0, middle: float = 50.0) -> Path:
    """Write the folder of a run with an untrained network, and return it.

    Args:
      middle: intensity landmark of the median.
    """
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    config = config.copy_and_resolve_references()
    config.data.percentiles = (1, 50, 99)
    sections = typed(config)
    run.config_file.write_text(sections.model_dump_json())
    Preprocessing(
        settings=sections.data.preprocessing, landmarks=(0.0, middle, 100.0), deviation=5.0
    ).save(run.preprocessing_file)
    variables = with_random_output(initial_variables(build_model(config), seed))
    with Checkpoints(run.checkpoints / "last", keep=1) as checkpoints:
        checkpoints.save(4, variables, {"moments": np.zeros(1)}, Progress())
    return folder


def models(paths) -> list[str]:
    """Return a --model flag for each path."""
    return [f"--model={path}" for path in paths]


def train_run(config: ConfigDict, run: RunFolder) -> None:
    """Train a run: the first part of `run_experiment`, up to the end of the training."""
    sections = typed(config)
    check_batch_size(sections.train.batch_size, jax.device_count())
    initial = initial_network(sections, run)
    check_patients(sections)
    run.create_or_continue(sections)
    train(sections, run, prepare_data(sections, run, initial), initial)


def newest_step(workdir: Path) -> int:
    """Return the step of a run's newest complete checkpoint; 0 if there is none yet."""
    folder = RunFolder(workdir).checkpoints / "last"
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def stored(workdir: Path) -> tuple[int, dict]:
    """Return the step and the content of a run's newest checkpoint, as NumPy arrays."""
    folder = RunFolder(workdir).checkpoints / "last"
    step = newest_step(workdir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Orbax warns that no shapes are given
        restore = ocp.StandardCheckpointer().restore
        return step, {item: restore(folder / str(step) / item) for item in ("model", "optimiser")}


def logged(workdir: Path, field: str) -> dict[int, object]:
    """Return a field of a run's log, by step."""
    lines = map(json.loads, RunFolder(workdir).log_file.read_text().splitlines())
    return {line["step"]: line[field] for line in lines if field in line}


def kill_at(step: int, monkeypatch) -> None:
    """Make trainings raise KeyboardInterrupt when they log `step`, until `monkeypatch.undo()`."""
    add = TrainingLog.add

    def die(log, at, metrics):
        if at == step:
            raise KeyboardInterrupt
        add(log, at, metrics)

    monkeypatch.setattr(TrainingLog, "add", die)


def final_state(config: ConfigDict, run: RunFolder) -> tuple[TrainState, Progress]:
    """Return the newest state of a run that can be read, and its progress."""
    state = create_state(build_model(config, AXIS), lambda step: 0.01)
    with Store(run) as store:
        return store.restore(state)


def assert_trees_equal(one, other) -> None:
    """Check that two trees have exactly the same values."""
    jax.tree.map(np.testing.assert_array_equal, one, other)
