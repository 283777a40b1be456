"""Trained networks into one file, to be handed on; or what such a file says of itself.

python -m msseg_jax.export --model=RUN --output=FILE.safetensors --name=NAME
python -m msseg_jax.export --show FILE.safetensors
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import jax

from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.models.folds import runs_of
from msseg_jax.models.model_file import (
    About,
    ModelFile,
    TrainedNetwork,
    is_model_file,
    read_model_file,
    write_model_file,
)
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.released import WEIGHTS, released
from msseg_jax.system.errors import InputError
from msseg_jax.system.text_table import text_table


def export(
    models: list[Path], output: Path, given: dict[str, str], predict: dict[str, float]
) -> None:
    """Write the networks of runs, cross-validations and model files into one model file.

    Args:
      given: texts of `About`. What is not given comes from `models`: see `_about`.
      predict: fields of config.predict, for all networks.

    Raises:
      InputError: a model cannot be read; they differ in what a file has one of; or the result
        cannot be written.
    """
    paths = runs_of(models)
    networks = [network for path in paths for network in trained_networks(path)]
    about = _about(paths, networks, output, given)
    networks = [_with_options(network, predict) for network in networks]
    Ensemble.of(networks).options()  # what predicting with the file would begin with
    write_model_file(output, about, networks)


def _about(
    paths: list[Path], networks: list[TrainedNetwork], output: Path, given: dict[str, str]
) -> About:
    """One model file is described as it was; else it is something new, called after `output`, to
    which the terms of model files go over, also of those that trainings began with."""
    if len(paths) == 1 and is_model_file(paths[0]):
        return replace(networks[0].about, **given)
    about = About(output.name.removesuffix(output.suffix))
    earlier = [network.about for network in networks if network.about]
    for field in ("licence", "attribution"):
        terms = sorted({getattr(one, field) for one in earlier} - {""})
        if len(terms) > 1 and field not in given:
            raise InputError(
                f"--{field}: the networks come from model files with different ones ("
                + "; ".join(repr(text) for text in terms)
                + f"); wanted one for all: give --{field}"
            )
        if terms:
            about = replace(about, **{field: terms[0]})
    return replace(about, **given)


def _with_options(network: TrainedNetwork, predict: dict[str, float]) -> TrainedNetwork:
    config = network.config.copy_and_resolve_references()
    with config.ignore_type():  # a number is a number, whichever way JSON has it
        config.predict.update(predict)
    return replace(network, config=config)


def describe(file: ModelFile) -> str:
    """What a model file says of itself, and its networks in a few lines each."""
    count = len(file.networks)
    mib = file.path.stat().st_size / 2**20
    rows = [
        ("file", f"{file.path}, {mib:.2f} MiB, written by msseg_jax {file.written_by}"),
        *((name.replace("_", " "), text) for name, text in asdict(file.about).items()),
        ("networks", f"{count}" + ", whose probabilities are averaged" * (count > 1)),
    ]
    for number, network in enumerate(file.networks):
        rows += [("", ""), (f"network {number}", f"{network.kind} checkpoint, step {network.step}")]
        rows += _rows(network)
    lines = []
    for label, text in rows:
        first, *others = text.split("\n")
        lines += [(label, first), *(("", other) for other in others)]
    return text_table(lines, "<<")


def _rows(network: TrainedNetwork) -> list[tuple[str, str]]:
    config, fitted = network.config, network.preprocessing
    model, predict = config.model, config.predict
    parameters = sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))
    landmarks = ", ".join(
        f"{percent:g} % {value:.4g}"
        for percent, value in zip(fitted.settings.percentiles, fitted.landmarks, strict=True)
    )
    return [
        ("parameters", f"{parameters:,}"),
        ("widths", ", ".join(map(str, model.widths))),
        ("output maps", str(model.targets)),
        ("voxels", f"{fitted.settings.spacing_mm:g} mm"),
        ("patches", f"{fitted.settings.patch_size} voxels along each side"),
        ("landmarks", landmarks),
        ("deviation", f"{fitted.deviation:.4g}, of the training visit furthest from them"),
        (
            "prediction",
            f"threshold {predict.threshold:g}, least lesion {predict.min_lesion_mm3:g} mm3, "
            f"overlap {predict.overlap} voxels",
        ),
    ]


def run(flags: argparse.Namespace) -> int:
    if flags.show is None:
        _write(flags)
    path = flags.show or flags.output
    print(describe(read_model_file(released() if str(path) == WEIGHTS else path)))
    return 0


def _write(flags: argparse.Namespace) -> None:
    output = flags.output
    if output.exists() and not flags.overwrite:
        raise InputError(f"{output}: is there already; wanted another name, or --overwrite")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; wanted one to write in")

    def given(*names: str) -> dict:
        return {name: value for name in names if (value := getattr(flags, name)) is not None}

    texts = given("name", "version", "licence", "attribution", "training_data", "description")
    export(flags.model, output, texts, given("threshold", "min_lesion_mm3"))
