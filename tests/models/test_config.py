import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import msseg2
from msseg_jax.models.configuration import (
    ConfigError,
    check_config,
    differences,
    load_config,
    save_config,
)
from msseg_jax.network.model import build_model, initial_variables
from msseg_jax.training.devices import AXIS
from msseg_jax.training.step import create_state, train_step

CONFIGS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "configs").glob("*.py")
    if path.stem != "__init__"
)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds_its_network_and_one_step(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    check_config(config)
    model = build_model(config, axis_name=AXIS)
    side, targets = config.data.patch_size, config.model.targets
    visit = jax.ShapeDtypeStruct((2, side, side, side, 1), jnp.float32)
    batch = {
        "time01": visit,
        "time02": visit,
        "targets": jax.ShapeDtypeStruct((2, side, side, side, targets), jnp.uint8),
        "patch_ids": jax.ShapeDtypeStruct((2,), jnp.int32),
    }
    state = jax.eval_shape(lambda: create_state(config, model, lambda step: 0.1))
    mapped = jax.vmap(
        lambda state, batch: train_step(state, batch, seed=0),
        in_axes=(None, 0), axis_name=AXIS, axis_size=1,
    )  # fmt: skip
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), batch)
    after, metrics = jax.eval_shape(mapped, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics["loss"].shape == (1,)
    assert metrics["loss"].dtype == jnp.float32


def test_the_papers_constants():
    config = msseg2.get_config()
    assert config.data.patch_size == 56
    assert config.data.patches_per_patient == 872
    assert config.data.lesion_patch_probability == 0.8
    assert config.data.spacing_mm == 0.8
    assert config.train.batch_size == 40
    assert config.train.epochs == 40
    assert config.train.learning_rate == 0.004
    assert config.train.learning_rate_decay == 0.9
    assert config.predict.overlap == 14
    assert config.predict.threshold == 0.6
    assert config.model.targets == 5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.patch_size", 50, "patch side 50 is no multiple of 8.* 48 and 56"),
        ("data.spacing_mm", 0.0, "wanted more than 0 mm"),
        ("data.percentiles", (10, 1), "ascending"),
        ("data.lesion_patch_probability", 1.5, "a number in 0..1"),
        ("data.workers", 0, "1 or more"),
        ("data.folds", 1, "0 .no cross-validation., or 2 or more"),
        ("data.folds", -2, "or 2 or more"),
        ("data.fold", 1, "0 without config.data.folds"),
        ("model.widths", (6,), "two or more"),
        ("model.dropout_rate", 1.0, "less than 1"),
        ("train.batch_size", 0, "1 or more"),
        ("train.learning_rate_decay", 0.0, "above 0"),
        ("predict.overlap", 56, "0 to 55 voxels"),
        ("predict.threshold", 1.0, "less than 1"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(field, value, message):
    config = msseg2.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=message) as error:
        check_config(config)
    assert f"config.{field}" in str(error.value)


@pytest.mark.parametrize(
    ("fold", "validation_patients", "message"),
    [
        (5, 0, "config.data.fold is 5; wanted 0 to 4"),
        (-1, 0, "config.data.fold is -1; wanted 0 to 4"),
        (0, 2, "config.data.validation_patients is 2; wanted 0 with config.data.folds"),
    ],
)
def test_a_fold_is_one_of_the_folds_and_held_out_alone(fold, validation_patients, message):
    config = msseg2.get_config()
    config.data.folds = 5
    config.data.fold = 4
    check_config(config)
    config.data.fold = fold
    config.data.validation_patients = validation_patients
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_folds_are_part_of_what_a_run_is(tmp_path):
    config = msseg2.get_config()
    config.data.folds = 5
    save_config(config, tmp_path / "config.json")
    config.data.fold = 1
    stored = load_config(tmp_path / "config.json")
    assert differences(config, stored) == ["config.data.fold is 1, the run has 0"]


def test_all_problems_come_together():
    config = msseg2.get_config()
    config.train.batch_size = 0
    config.data.spacing_mm = -1.0
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert len(str(error.value).splitlines()) == 2


def test_a_stored_configuration_builds_the_same_network(tmp_path):
    config = msseg2.get_config()
    save_config(config, tmp_path / "config.json")
    stored = load_config(tmp_path / "config.json")
    assert differences(config, stored) == []
    assert build_model(stored) == build_model(config)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(small_config):
    model = build_model(small_config)
    one, same, other = (
        initial_variables(model, seed)["params"]["refinement"]["unit_0"]["convolution"]["kernel"]
        for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).all()
