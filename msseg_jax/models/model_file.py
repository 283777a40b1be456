"""Trained networks in one file, to be handed on: weights, preprocessing, and what they are.

A model file is a safetensors file: numbers and text, nothing that is executed. Its tensors are
`<network>/params/...` and `<network>/batch_stats/...`, networks counted from 0. The only entry of
its metadata, `msseg_jax`, is JSON:

    format_version   raised when the meaning of anything here changes; older files stay readable
    about            the fields of `About`
    written_by       the version of msseg_jax
    networks         of each: config, preprocessing, and kind and step of its checkpoint

The part of a configuration that a trained network depends on (`TrainedSettings`) is checked to the
last field. The rest is kept as a record of the training, and may come from another version. Paths
of the machine on which it was trained are left out.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from pydantic import AfterValidator, Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import msseg_jax
from msseg_jax.configuration.section import Section
from msseg_jax.configuration.sections import PreprocessingSettings, TrainedSettings
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.released import WEIGHTS
from msseg_jax.network.model import SiameseMPUNet, variable_shapes
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError

SUFFIX = ".safetensors"
FORMAT = "msseg_jax"
FORMAT_VERSION = 1

_EXPECTED = "expected a model file, as `msseg export` writes it"
_DTYPES = {"F32": np.dtype(np.float32)}  # safetensors' names of those that networks have


def _printable(text: str) -> str:
    if not all(c.isprintable() or c == "\n" for c in text):
        raise ValueError(f"the text {text!r} has characters that cannot be printed")
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"the text {text!r} is not one line that can be printed")
    return text


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("the name is empty")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Line = Annotated[str, AfterValidator(_one_line)]


class About(Section):
    """What a model file says of itself, in its maker's words."""

    name: Annotated[Line, AfterValidator(_not_empty)]
    version: Line = ""
    licence: Line = ""
    attribution: Text = ""
    training_data: Text = ""
    description: Text = ""

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".strip()


class Beginning(Section):
    """What a run remembers of the trained network with which it began."""

    network: str
    about: About | None  # of its model file


@dataclass(frozen=True)
class TrainedNetwork:
    """One network with everything that using it needs."""

    source: str  # where it comes from, in words
    config: TrainedSettings
    preprocessing: Preprocessing
    variables: dict[str, Any]  # {'params', 'batch_stats'}, float32 arrays
    kind: str  # of its checkpoint: 'best' or 'last'
    step: int
    # Of the model file that it lies in, or of the one that its training began with.
    about: About | None = None
    record: dict[str, Any] = field(default_factory=dict)  # the training's whole configuration

    def __str__(self) -> str:
        return f"{self.source}, its {self.kind} checkpoint, step {self.step}"


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file."""

    path: Path
    about: About
    written_by: str  # version of msseg_jax
    networks: list[TrainedNetwork]


class _Entry(Section):
    """What the description says of one network."""

    config: dict[str, Any]
    preprocessing: Preprocessing
    kind: Literal["best", "last"]
    step: int


class _Description(Section):
    """The JSON in the metadata."""

    format_version: int
    about: About
    written_by: Line
    networks: Annotated[tuple[_Entry, ...], Field(min_length=1)]


def is_model_file(path: Path) -> bool:
    """Return whether a path means a model file, and not a run's folder."""
    return path.is_file() or (path.suffix == SUFFIX and not path.is_dir())


# --------------------------------------------------------------------------------------- writing


def write_model_file(path: Path, about: About, networks: list[TrainedNetwork]) -> None:
    """Write networks into one file; it replaces a file that exists.

    Raises:
      InputError: the name does not end in .safetensors, a text cannot be shown, or a network has
        numbers that are not finite.
      OSError: the file cannot be written; nothing is left of it then.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: expected a name that ends in {SUFFIX}")
    # A changed copy was not checked yet.
    about = About.of(about.model_dump(warnings=False), f"{path}: about")
    tensors = {}
    for number, network in enumerate(networks):
        for name, array in flatten_dict(network.variables, sep="/").items():
            array = np.asarray(array)
            if not np.isfinite(array).all():
                raise InputError(
                    f"{network}: {name} has numbers that are not finite; expected finite weights: "
                    "train again with a lower learning rate"
                )
            tensors[f"{number}/{name}"] = array
    document = {
        "format_version": FORMAT_VERSION,
        "about": about.model_dump(),
        "written_by": msseg_jax.__version__,
        "networks": [
            {
                "config": _record_without_paths(network),
                "preprocessing": network.preprocessing.model_dump(),
                "kind": network.kind,
                "step": network.step,
            }
            for network in networks
        ],
    }
    # Only one entry: safetensors writes several in random order, and the same networks would not
    # give the same bytes.
    metadata = {FORMAT: json.dumps(document)}
    content = save(tensors, metadata=metadata)  # its `save_file` would let nobody else read it
    write_beside(path, lambda partial: partial.write_bytes(content))


def _record_without_paths(network: TrainedNetwork) -> dict[str, Any]:
    """Return the training's configuration, with the settings that the network has now."""
    settings = network.config.model_dump()
    data = network.record.get("data", {}) | settings["data"] | {"root": "", "cache_dir": None}
    record = network.record | settings | {"data": data}
    if record.get("init", WEIGHTS) != WEIGHTS:
        record |= {"init": "", "init_network": 0}
    return record


# --------------------------------------------------------------------------------------- reading


class _Damage(Exception):
    """What is wrong in a file, in words that do not name it."""


def read_model_file(path: Path | str) -> ModelFile:
    """Read and check all of a model file.

    Raises:
      InputError: it is missing, a folder, damaged, no model file, or of a newer version.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder; {_EXPECTED}: if it is the folder of a run or a "
            f"cross-validation, write one with --model={path} --output=FILE{SUFFIX}"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_EXPECTED}: check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            document = _document(path, file.metadata())
            try:
                description = _Description.of(document, "description", complete=True)
                configs = [_trained_settings(k, e) for k, e in enumerate(description.networks)]
            except InputError as error:
                raise _Damage(str(error)) from error
            variables = _variables(file, [SiameseMPUNet(config.model) for config in configs])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); {_EXPECTED}") from error
    except SafetensorError as error:
        raise InputError(
            f"{path}: is no whole safetensors file ({error}); {_EXPECTED}: if this was one, it is "
            "cut short or damaged, so copy or download it again"
        ) from error
    except _Damage as error:
        raise InputError(
            f"{path}: is damaged: {error}; {_EXPECTED}: copy or download it again"
        ) from error
    about = description.about
    networks = []
    for number, entry in enumerate(description.networks):
        source = f"{about.title} ({path})"
        if len(configs) > 1:
            source += f", network {number} (0 to {len(configs) - 1})"
        networks.append(
            TrainedNetwork(
                source, configs[number], entry.preprocessing, variables[number], entry.kind,
                entry.step, about, entry.config,
            )
        )  # fmt: skip
    return ModelFile(path, about, description.written_by, networks)


def _document(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return the JSON of the metadata, after a look at its version."""
    text = (metadata or {}).get(FORMAT)
    if text is None:
        raise InputError(
            f"{path}: is a safetensors file of another program: its metadata lack {FORMAT!r}; "
            f"{_EXPECTED}"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Damage(f"its description is no JSON ({error})") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise _Damage(f"its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path}: was written by a newer version of this program: its format version is "
            f"{version}; expected at most {FORMAT_VERSION}: update msseg_jax"
        )
    return document


def _trained_settings(number: int, entry: _Entry) -> TrainedSettings:
    """Return the settings that a network depends on, which fit its preprocessing.

    Raises:
      InputError: one is missing, or cannot work.
    """
    where = f"description.networks[{number}].config"
    names, data = TrainedSettings.model_fields, PreprocessingSettings.model_fields
    found = {name: value for name, value in entry.config.items() if name in names}
    if isinstance(found.get("data"), dict):
        found["data"] = {name: value for name, value in found["data"].items() if name in data}
    config = TrainedSettings.of(found, where, complete=True)
    if entry.preprocessing.settings != config.data:
        raise InputError(
            f"{where}.data is {config.data}; expected {entry.preprocessing.settings}, as in the "
            "preprocessing"
        )
    return config


def _variables(file: Any, models: list[SiameseMPUNet]) -> list[dict[str, Any]]:
    """Return the tensors of an open file as variables of these networks."""
    expected: dict[str, jax.ShapeDtypeStruct] = {
        f"{number}/{name}": leaf
        for number, model in enumerate(models)
        for name, leaf in flatten_dict(variable_shapes(model), sep="/").items()
    }
    found = set(file.keys())
    for word, names in (
        ("lacks", expected.keys() - found), ("has unknown", found - expected.keys())
    ):  # fmt: skip
        if names:
            raise _Damage(f"it {word} tensors: {len(names)}, such as {min(names)}")
    for name, leaf in expected.items():
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
        if _DTYPES.get(dtype) != leaf.dtype or shape != leaf.shape:
            raise _Damage(
                f"its tensor {name} is {shape} {dtype}, where its network has {leaf.shape} "
                f"{leaf.dtype}"
            )
    arrays = {name: file.get_tensor(name) for name in expected}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise _Damage(f"its tensor {name} has numbers that are not finite")
    tree = unflatten_dict(arrays, sep="/")
    return [tree[str(number)] for number in range(len(models))]
