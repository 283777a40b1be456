"""Read and write model files, which contain trained networks with all that is needed to use them.

A model file is a safetensors file. It contains only numbers and text, and no code. Its tensors are
named `<network>/params/...` and `<network>/batch_stats/...`; networks are numbered from 0. Its
metadata have a single entry, `msseg_jax`, which is JSON:

    format_version   increased when the meaning of any entry changes; older files stay readable
    about            the fields of `About`
    written_by       the version of msseg_jax
    networks         for each network: config, preprocessing, kind and step of its checkpoint
    reliability      the fields of `Reliability`, for all networks together; not in every file

A file without `reliability` has format version 1, and one with it has 2.

All fields of a configuration on which a trained network depends (`TrainedSettings`) are checked.
The other fields are kept as a record of the training, and may come from another version of the
program. Paths on the machine of the training are not written.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import msseg_jax
from msseg_jax.configuration.section import Section, setting
from msseg_jax.configuration.sections import PreprocessingSettings, TrainedSettings
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.released import WEIGHTS
from msseg_jax.models.reliability import Reliability
from msseg_jax.models.texts import FilledLine, Line, Text
from msseg_jax.network.model import SiameseMPUNet, variable_shapes
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_output
from msseg_jax.system.shown import shortened, shown

SUFFIX = ".safetensors"
FORMAT = "msseg_jax"
FORMAT_VERSION = 2  # the newest that can be read
WITHOUT_RELIABILITY = 1  # the version of files without a table, which older programs read

_EXPECTED = "expected a model file, as `msseg export` writes it"
_DTYPES = {"F32": np.dtype(np.float32)}  # types of the tensors, by their name in safetensors


class About(Section):
    """The description of a model file, written by its authors."""

    name: FilledLine
    version: Line = ""
    licence: Line = ""
    attribution: Text = ""
    training_data: Text = ""
    description: Text = ""

    @property
    def title(self) -> str:
        """Name and version of the model."""
        return f"{self.name} {self.version}".strip()


class Beginning(Section):
    """The record of the trained network from which a run was started."""

    network: str
    about: About | None  # description of its model file


@dataclass(frozen=True)
class TrainedNetwork:
    """One trained network, with everything that is needed to use it."""

    source: str  # where it comes from, for messages
    config: TrainedSettings
    preprocessing: Preprocessing
    variables: dict[str, Any]  # {'params', 'batch_stats'}, float32 arrays
    kind: str  # of its checkpoint: 'best' or 'last'
    step: int
    # Description of its model file. For a run: of the model file from which the run was started.
    about: About | None = None
    record: dict[str, Any] = field(default_factory=dict)  # the whole configuration of the training
    # The table of its model file. It holds for all networks of this file together.
    reliability: Reliability | None = None

    def __str__(self) -> str:
        return f"{self.source}, {self.kind} checkpoint (step {self.step})"


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file."""

    path: Path
    about: About
    written_by: str  # version of msseg_jax
    networks: list[TrainedNetwork]

    @property
    def reliability(self) -> Reliability | None:
        """The reliability table of all networks together, if the file has one."""
        return self.networks[0].reliability


class _Entry(Section):
    """The description of one network in the metadata."""

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
    reliability: Reliability | None = setting(None, "the table, if there is one", later=True)


def is_model_file(path: Path) -> bool:
    """Return whether a path is a file, or has the name of a model file and is not a folder."""
    return path.is_file() or (path.suffix == SUFFIX and not path.is_dir())


# --------------------------------------------------------------------------------------- writing


def write_model_file(
    path: Path,
    about: About,
    networks: list[TrainedNetwork],
    reliability: Reliability | None = None,
) -> None:
    """Write networks to one file. An existing file is replaced.

    Args:
      path: the file, which ends in .safetensors.
      about: its description.
      networks: the networks. Their own tables are not written.
      reliability: the table of all these networks together, if there is one.

    Raises:
      InputError: the name does not end in .safetensors, a text cannot be printed, or a network has
        weights that are not finite.
      OSError: the file cannot be written. No incomplete file is left.
    """
    check_output(path, (SUFFIX,))
    # Check it here, because `model_copy` does not check the values that it changes.
    about = About.of(about.model_dump(warnings=False), f"{path}: about")
    tensors = {}
    for number, network in enumerate(networks):
        for name, array in flatten_dict(network.variables, sep="/").items():
            array = np.asarray(array)
            if not np.isfinite(array).all():
                raise InputError(
                    f"{network}: {name} has numbers that are not finite; expected finite weights. "
                    "Train again with a lower learning rate."
                )
            tensors[f"{number}/{name}"] = array
    document = {
        "format_version": WITHOUT_RELIABILITY if reliability is None else FORMAT_VERSION,
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
    if reliability is not None:
        document["reliability"] = reliability.model_dump()
    # Use only one entry. safetensors writes several entries in random order, so the same networks
    # would not give the same bytes.
    metadata = {FORMAT: json.dumps(document)}
    content = save(tensors, metadata=metadata)  # `save_file` makes it unreadable to other users
    write_beside(path, lambda partial: partial.write_bytes(content))


def _record_without_paths(network: TrainedNetwork) -> dict[str, Any]:
    """Return the configuration of the training, updated with the network's current settings."""
    settings = network.config.model_dump()
    data = network.record.get("data", {}) | settings["data"] | {"root": "", "cache_dir": None}
    record = network.record | settings | {"data": data}
    if record.get("init", WEIGHTS) != WEIGHTS:
        record |= {"init": "", "init_network": 0}
    return record


# --------------------------------------------------------------------------------------- reading


class _Damage(Exception):
    """A fault in the content of a file. The message does not name the file."""


def read_model_file(path: Path | str) -> ModelFile:
    """Read a model file, and check its whole content.

    Raises:
      InputError: the file does not exist, is a folder, is damaged, is not a model file, or was
        written by a newer version.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder; {_EXPECTED}. If it is the folder of a run or of a "
            f"cross-validation, export it: `msseg export --model={path} --output=FILE{SUFFIX}`."
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_EXPECTED}. Check the path.")
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
            f"{path}: is not a complete safetensors file ({shortened(error)}); {_EXPECTED}. If it "
            "was one, it is truncated or damaged. Copy or download it again."
        ) from error
    except _Damage as error:
        raise InputError(
            f"{path}: is damaged: {error}; {_EXPECTED}. Copy or download it again."
        ) from error
    about = description.about
    networks = []
    for number, entry in enumerate(description.networks):
        source = f"{about.title} ({path})"
        if len(configs) > 1:
            source += f", network {number} of {len(configs)} (numbered from 0)"
        networks.append(
            TrainedNetwork(
                source, configs[number], entry.preprocessing, variables[number], entry.kind,
                entry.step, about, entry.config, description.reliability,
            )
        )  # fmt: skip
    return ModelFile(path, about, description.written_by, networks)


def _document(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return the JSON of the metadata, and check its format version."""
    text = (metadata or {}).get(FORMAT)
    if text is None:
        raise InputError(
            f"{path}: is a safetensors file of another program, because its metadata have no "
            f"entry {FORMAT!r}; {_EXPECTED}"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Damage(f"its description is not JSON ({shortened(error)})") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise _Damage(f"its format version is {shown(version)}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path}: was written by a newer version of this program: its format version is "
            f"{version}; expected at most {FORMAT_VERSION}. Update msseg_jax."
        )
    return document


def _trained_settings(number: int, entry: _Entry) -> TrainedSettings:
    """Return the settings on which a network depends, and check them.

    Raises:
      InputError: a setting is missing or invalid, or differs from those of the preprocessing.
    """
    where = f"description.networks[{number}].config"
    names, data = TrainedSettings.model_fields, PreprocessingSettings.model_fields
    found = {name: value for name, value in entry.config.items() if name in names}
    if isinstance(found.get("data"), dict):
        found["data"] = {name: value for name, value in found["data"].items() if name in data}
    config = TrainedSettings.of(found, where, complete=True)
    if entry.preprocessing.settings != config.data:
        raise InputError(
            f"{where}.data is {config.data}; expected {entry.preprocessing.settings}, the settings "
            "of the preprocessing"
        )
    return config


def _variables(file: Any, models: list[SiameseMPUNet]) -> list[dict[str, Any]]:
    """Return the tensors of an open file as the variables of these networks."""
    expected: dict[str, jax.ShapeDtypeStruct] = {
        f"{number}/{name}": leaf
        for number, model in enumerate(models)
        for name, leaf in flatten_dict(variable_shapes(model), sep="/").items()
    }
    found = set(file.keys())
    for word, names in (
        ("missing", expected.keys() - found), ("unknown", found - expected.keys())
    ):  # fmt: skip
        if names:
            raise _Damage(
                f"tensors are {word} ({len(names)} in all), such as {shortened(min(names))}"
            )
    for name, leaf in expected.items():
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
        if _DTYPES.get(dtype) != leaf.dtype or shape != leaf.shape:
            raise _Damage(
                f"its tensor {name} is {shape} {dtype}, but its network needs {leaf.shape} "
                f"{leaf.dtype}"
            )
    arrays = {name: file.get_tensor(name) for name in expected}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise _Damage(f"its tensor {name} has numbers that are not finite")
    tree = unflatten_dict(arrays, sep="/")
    return [tree[str(number)] for number in range(len(models))]
