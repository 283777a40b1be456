"""The resolved configuration: checked before any work, stored with the run, compared later."""

import json
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from msseg_jax.data.preprocess import Settings
from msseg_jax.network.model import build_model, check_patch_size
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json

# These may change between the parts of a run: they do not change what it computes, or only how
# far it goes.
_FREE = (
    "data.root", "data.cache_dir", "data.workers", "data.device_resident", "train.epochs",
    "train.max_steps", "train.log_every_steps", "train.checkpoint_every_steps",
)  # fmt: skip
# What runs of earlier versions did, before there were fields to say so.
_BEFORE = {"init": "", "init_network": 0}


class ConfigError(InputError):
    """A configuration that cannot work; the message names the field."""


def check_config(config: ConfigDict) -> None:
    """Raises ConfigError with every field whose value cannot work."""
    problems = []
    check = partial(_check, problems, config)
    _check_network(config, problems)
    for field in ("seed", "init_network"):
        if config[field] < 0:
            problems.append(f"config.{field} is {config[field]}; wanted 0 or more")
    if config.init_network and not config.init:
        problems.append(
            f"config.init_network is {config.init_network}; wanted 0 without config.init"
        )
    data, train = config.data, config.train
    check(
        0 <= data.lesion_patch_probability <= 1, "data.lesion_patch_probability", "a number in 0..1"
    )
    check(data.patches_per_patient >= 1, "data.patches_per_patient", "1 or more")
    check(
        data.phantom_spacing_mm is None or 0.5 <= data.phantom_spacing_mm <= 4,
        "data.phantom_spacing_mm",
        "0.5 to 4 mm, or None",
    )
    for field in ("phantom_patients", "validation_patients"):
        check(data[field] >= 0, f"data.{field}", "0 or more")
    check(data.workers >= 1, "data.workers", "1 or more")
    check(
        train.compute_dtype in ("float32", "bfloat16"), "train.compute_dtype",
        "'float32' or 'bfloat16'",
    )  # fmt: skip
    check(data.folds == 0 or data.folds >= 2, "data.folds", "0 (no cross-validation), or 2 or more")
    if data.folds > 0:
        check(0 <= data.fold < data.folds, "data.fold", f"0 to {data.folds - 1}, one of the folds")
        check(
            data.validation_patients <= 0,
            "data.validation_patients",
            "0 with config.data.folds, as it is a fold that is held out",
        )
    else:
        check(data.fold == 0, "data.fold", "0 without config.data.folds")
    check(train.max_steps >= 0, "train.max_steps", "0 (no limit) or more")
    check(train.learning_rate > 0, "train.learning_rate", "more than 0")
    check(0 < train.learning_rate_decay <= 1, "train.learning_rate_decay", "above 0, at most 1")
    for field in ("batch_size", "epochs", "log_every_steps", "validate_every_steps",
                  "checkpoint_every_steps"):  # fmt: skip
        check(train[field] >= 1, f"train.{field}", "1 or more")
    _check_augmentation(config, check)
    if problems:
        raise ConfigError("\n".join(problems))


def check_network(config: ConfigDict) -> None:
    """As `check_config`, of what matters when the network is trained: itself, what it sees, and
    the mask."""
    problems = []
    _check_network(config, problems)
    if problems:
        raise ConfigError("\n".join(problems))


def _check(problems: list[str], config: ConfigDict, holds: bool, field: str, wanted: str) -> None:
    if not holds:
        section, name = field.split(".")
        problems.append(f"config.{field} is {config[section][name]}; wanted {wanted}")


def _check_network(config: ConfigDict, problems: list[str]) -> None:
    check = partial(_check, problems, config)
    model, data, predict = config.model, config.data, config.predict
    check(
        len(model.widths) >= 2 and min(model.widths) >= 1, "model.widths", "two or more, each > 0"
    )
    for field in ("node_convolutions", "refinement_width", "refinement_convolutions", "targets"):
        check(model[field] >= 1, f"model.{field}", "1 or more")
    check(0 < model.initial_probability < 1, "model.initial_probability", "between 0 and 1")
    check(0 <= model.dropout_rate < 1, "model.dropout_rate", "0 or more and less than 1")
    check(0 < model.norm_momentum < 1, "model.norm_momentum", "more than 0 and less than 1")
    check(model.norm_epsilon > 0, "model.norm_epsilon", "more than 0")
    check(data.spacing_mm > 0, "data.spacing_mm", "more than 0 mm")
    check(
        len(data.percentiles) >= 2
        and all(0 <= p <= 100 for p in data.percentiles)
        and all(a < b for a, b in zip(data.percentiles, data.percentiles[1:], strict=False)),
        "data.percentiles",
        "two or more, from 0 to 100, ascending",
    )
    check(
        0 <= predict.overlap < data.patch_size,
        "predict.overlap",
        f"0 to {data.patch_size - 1} voxels, less than config.data.patch_size",
    )
    check(0 <= predict.threshold < 1, "predict.threshold", "0 or more and less than 1")
    check(predict.min_lesion_mm3 >= 0, "predict.min_lesion_mm3", "0 mm3 or more")
    check(predict.batch_size >= 1, "predict.batch_size", "1 or more")
    try:
        check_patch_size([data.patch_size], build_model(config).side_multiple)
    except InputError as error:
        problems.append(f"config.data.patch_size: {error}")


# How far the control points of a cubic B-spline may move along each axis, in cells of their grid,
# before it may fold space: 1 / 2.48 in three dimensions (Choi and Lee, "Injectivity conditions of
# 2D and 3D uniform cubic B-spline functions", Graphical Models 62, 2000).
_UNFOLDED = 0.4


def _check_augmentation(config: ConfigDict, check) -> None:
    augmentation = config.augmentation
    flips = augmentation.flip_probability
    check(
        len(flips) == 3 and all(0 <= p <= 1 for p in flips),
        "augmentation.flip_probability",
        "three numbers in 0..1, one for each array axis",
    )
    for field in ("affine", "elastic", "misregistration", "gamma", "gain", "bias", "blur",
                  "slice", "noise"):  # fmt: skip
        name = f"{field}_probability"
        check(0 <= augmentation[name] <= 1, f"augmentation.{name}", "a number in 0..1")
    # Beyond these nothing of a patch is left to learn from; far beyond, memory does not suffice.
    side = config.data.patch_size
    check(0 <= augmentation.scale <= 1, "augmentation.scale", "0 to 1")
    for field in ("gamma", "gain", "bias", "noise"):
        check(0 <= augmentation[field] <= 10, f"augmentation.{field}", "0 to 10")
    for field, least in (("misregistration_voxels", 0), ("blur_voxels", 0), ("slice_voxels", 1)):
        check(
            least <= augmentation[field] <= side,
            f"augmentation.{field}",
            f"{least} to {side} voxels, config.data.patch_size",
        )
    for field in ("rotation_degrees", "misregistration_degrees"):
        check(0 <= augmentation[field] <= 180, f"augmentation.{field}", "0 to 180 degrees")
    for field in ("elastic_cells", "bias_cells"):
        check(
            1 <= augmentation[field] <= side,
            f"augmentation.{field}",
            f"1 to {side}, config.data.patch_size",
        )
    check(
        0 <= augmentation.elastic <= _UNFOLDED,
        "augmentation.elastic",
        f"0 to {_UNFOLDED} of a cell, as more may fold a patch upon itself",
    )
    check(
        -100 <= augmentation.zero_signal < 0,
        "augmentation.zero_signal",
        "-100 or more and less than 0, the brain's mean",
    )
    check(
        not (augmentation.enabled and config.data.device_resident),
        "augmentation.enabled",
        "False with config.data.device_resident, or that False: patches that are cut on the "
        "device are not augmented",
    )


def settings_of(config: ConfigDict) -> Settings:
    """What preprocessing depends on, beside the landmarks."""
    data = config.data
    return Settings(float(data.spacing_mm), tuple(data.percentiles), data.patch_size)


def save_config(config: ConfigDict, path: Path) -> None:
    """Write a configuration as JSON."""
    path.write_text(json.dumps(config.to_dict(), indent=1) + "\n")


def load_config(path: Path) -> ConfigDict:
    """Read what `save_config` wrote; tuples come back as lists."""
    return ConfigDict(read_json(path))


def differences(config: ConfigDict, stored: ConfigDict) -> list[str]:
    """Fields in which a configuration cannot continue a run of the `stored` one, in words."""
    ours = _flat(json.loads(json.dumps(config.to_dict())))
    theirs = _BEFORE | _flat(stored.to_dict())
    return [
        f"config.{field} is {ours.get(field)}, the run has {theirs.get(field)}"
        for field in sorted(ours | theirs)
        if ours.get(field) != theirs.get(field) and field not in _FREE
    ]


def what_must_agree(config: ConfigDict) -> str:
    """All fields in which processes that train together must agree, as text."""
    own = ("data.root", "data.cache_dir", "data.workers")  # of each machine
    fields = _flat(config.to_dict())
    return json.dumps({name: fields[name] for name in fields if name not in own}, sort_keys=True)


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    """{'a': {'b': 1}} to {'a.b': 1}."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
