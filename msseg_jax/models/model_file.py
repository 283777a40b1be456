"""Trained networks in one file, to be handed on: weights, preprocessing, and what they are.

A model file is a safetensors file: numbers and text, nothing that is executed. Its tensors are
`<network>/params/...` and `<network>/batch_stats/...`, networks counted from 0. The one entry of
its metadata, `msseg_jax`, is JSON:

    format_version   raised when the meaning of anything here changes; older files stay readable
    about            the fields of `About`
    written_by       the version of msseg_jax
    networks         of each: config, preprocessing, and kind and step of its checkpoint

Of a configuration, what a trained network depends on (`model`, `predict`, and three fields of
`data`) is checked to the last field. The rest is kept as a record of the training, and may be that
of another version. Paths of the machine it was trained on are left out.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import msseg_jax
from msseg_jax.configuration.options import Options
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models.configuration import ConfigError, check_network, settings_of
from msseg_jax.models.released import WEIGHTS
from msseg_jax.network.model import SiameseMPUNet, build_model, variable_shapes
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError

SUFFIX = ".safetensors"
FORMAT = "msseg_jax"
FORMAT_VERSION = 1

_WANTED = "a model file, as python -m msseg_jax.export writes it"
_DTYPES = {"F32": np.dtype(np.float32)}  # safetensors' names of those that networks have


class ModelFileError(InputError):
    """A model file that cannot be used; the message names it, and says what to do."""


@dataclass(frozen=True)
class About:
    """What a model file says of itself, as its maker put it."""

    name: str
    version: str = ""
    licence: str = ""
    attribution: str = ""
    training_data: str = ""
    description: str = ""

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class TrainedNetwork:
    """One network with all that using it needs."""

    source: str  # where it comes from, in words
    config: ConfigDict  # it was trained with
    preprocessing: Preprocessing
    variables: dict  # {'params', 'batch_stats'}, float32 arrays
    kind: str  # of its checkpoint: 'best' or 'last'
    step: int
    # Of the model file that it lies in, or of the one that its training began with.
    about: About | None = None

    def __str__(self) -> str:
        return f"{self.source}, its {self.kind} checkpoint, step {self.step}"


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file."""

    path: Path
    about: About
    written_by: str  # version of msseg_jax
    networks: list[TrainedNetwork]


def is_model_file(path: Path) -> bool:
    """Whether a path means a model file, and not a run's folder."""
    return path.is_file() or (path.suffix == SUFFIX and not path.is_dir())


def _check_text(path: Path, name: str, text, in_one_line: bool) -> None:
    """Raises ModelFileError for text that cannot be shown, on a terminal or a page."""
    if not isinstance(text, str):
        raise ModelFileError(f"{path}: its {name} is {text!r}; wanted text")
    if not all(c.isprintable() or (c == "\n" and not in_one_line) for c in text):
        raise ModelFileError(
            f"{path}: its {name} is {text!r}; wanted text that can be printed"
            + ", in one line" * in_one_line
        )


def _check_about(path: Path, about: About) -> None:
    """Raises ModelFileError for texts that cannot be shown, or no name."""
    for name, text in asdict(about).items():
        _check_text(path, name, text, in_one_line=name in ("name", "version", "licence"))
    if not about.name.strip():
        raise ModelFileError(f"{path}: its name is empty; wanted a name")


# --------------------------------------------------------------------------------------- writing


def write_model_file(path: Path, about: About, networks: list[TrainedNetwork]) -> None:
    """Write networks into one file, in place of any that is there.

    Raises:
      ModelFileError: the name does not end in .safetensors, a text cannot be shown, or a network
        has numbers that are not finite.
      OSError: it cannot be written; nothing is left of it then.
    """
    if path.suffix != SUFFIX:
        raise ModelFileError(f"{path}: wanted a name that ends in {SUFFIX}")
    _check_about(path, about)
    tensors = {}
    for number, network in enumerate(networks):
        for name, array in flatten_dict(network.variables, sep="/").items():
            array = np.asarray(array)
            if not np.isfinite(array).all():
                raise ModelFileError(
                    f"{network}: {name} has numbers that are not finite; wanted a training that "
                    "has not gone wrong"
                )
            tensors[f"{number}/{name}"] = array
    document = {
        "format_version": FORMAT_VERSION,
        "about": asdict(about),
        "written_by": msseg_jax.__version__,
        "networks": [
            {
                "config": _without_paths(network.config),
                "preprocessing": asdict(network.preprocessing),
                "kind": network.kind,
                "step": network.step,
            }
            for network in networks
        ],
    }
    # One entry alone: safetensors writes several in random order, and the same networks would not
    # give the same bytes.
    metadata = {FORMAT: json.dumps(document)}
    content = save(tensors, metadata=metadata)  # its `save_file` would let nobody else read it
    write_beside(path, lambda partial: partial.write_bytes(content))


def _without_paths(config: ConfigDict) -> dict:
    plain = json.loads(json.dumps(config.to_dict()))
    plain["data"]["root"] = ""
    plain["data"]["cache_dir"] = None
    if plain.get("init", WEIGHTS) != WEIGHTS:
        plain |= {"init": "", "init_network": 0}
    return plain


# --------------------------------------------------------------------------------------- reading


class _Damage(Exception):
    """What is wrong in a file, in words that do not name it."""


def read_model_file(path: Path | str) -> ModelFile:
    """Read and check all of a model file.

    Raises:
      ModelFileError: it is missing, a folder, damaged, no model file, or of a newer version.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(
            f"{path}: is a folder; wanted {_WANTED}: if it is that of a run or a "
            f"cross-validation, write one with --model={path} --output=FILE{SUFFIX}"
        )
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; wanted {_WANTED}: check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            document = _document(path, file.metadata())
            about = About(**_exactly("about", document["about"], _names(About)))
            _check_about(path, about)
            _check_text(path, "written_by", document["written_by"], in_one_line=True)
            entries = document["networks"]
            if not isinstance(entries, list) or not entries:
                raise _Damage("its list of networks is empty, or none")
            parts = [_parts(number, entry) for number, entry in enumerate(entries)]
            variables = _variables(file, [build_model(config) for config, _ in parts])
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error}); wanted {_WANTED}") from error
    except SafetensorError as error:
        raise ModelFileError(
            f"{path}: is no whole safetensors file ({error}); wanted {_WANTED}: if this was one, "
            "it is cut short or damaged, so copy or download it again"
        ) from error
    except (_Damage, ConfigError) as error:
        raise ModelFileError(
            f"{path}: is damaged: {error}; wanted {_WANTED}: copy or download it again"
        ) from error
    networks = []
    for number, (config, preprocessing) in enumerate(parts):
        source = f"{about.title} ({path})"
        if len(parts) > 1:
            source += f", network {number} (0 to {len(parts) - 1})"
        kind, step = entries[number]["kind"], entries[number]["step"]
        networks.append(
            TrainedNetwork(source, config, preprocessing, variables[number], kind, step, about)
        )
    return ModelFile(path, about, document["written_by"], networks)


def _document(path: Path, metadata: dict[str, str] | None) -> dict:
    text = (metadata or {}).get(FORMAT)
    if text is None:
        raise ModelFileError(
            f"{path}: is a safetensors file, but none of ours: its metadata lack {FORMAT!r}; "
            f"wanted {_WANTED}"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Damage(f"its description is no JSON ({error})") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise _Damage(f"its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: was written by a newer version of this program: its format version is "
            f"{version}; wanted at most {FORMAT_VERSION}: update msseg_jax"
        )
    return _exactly("description", document, {"format_version", "about", "written_by", "networks"})


def _names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def _exactly(what: str, found, wanted: set[str]) -> dict:
    """`found`, where it is a dict of these keys."""
    if not isinstance(found, dict):
        raise _Damage(f"its {what} is {found!r:.50}, no table of fields")
    if wanted != found.keys():
        wrong = {"lacks": wanted - found.keys(), "has unknown": found.keys() - wanted}
        said = [f"{word} {', '.join(sorted(names))}" for word, names in wrong.items() if names]
        raise _Damage(f"its {what} {' and '.join(said)}")
    return found


def _parts(number: int, entry) -> tuple[ConfigDict, Preprocessing]:
    """Configuration and preprocessing of a network, which fit each other."""
    what = f"network {number}"
    _exactly(what, entry, {"config", "preprocessing", "kind", "step"})
    if entry["kind"] not in ("best", "last") or type(entry["step"]) is not int:
        raise _Damage(f"{what} is of checkpoint {entry['kind']!r}, step {entry['step']!r}")
    config = _config(what, entry["config"])
    found = _exactly(f"preprocessing of {what}", entry["preprocessing"], _names(Preprocessing))
    try:
        preprocessing = Preprocessing.of(found)
        numbers = [*preprocessing.landmarks, preprocessing.deviation]
        fit = len(preprocessing.landmarks) == len(preprocessing.settings.percentiles) and all(
            type(value) in (int, float) and math.isfinite(value) for value in numbers
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _Damage(f"the preprocessing of {what} has other fields ({error!r})") from error
    if not fit:
        raise _Damage(
            f"the preprocessing of {what} has landmarks {list(preprocessing.landmarks)} and "
            f"deviation {preprocessing.deviation!r}, not a finite number for each percentile"
        )
    if preprocessing.settings != settings_of(config):
        raise _Damage(
            f"the preprocessing of {what} is by {preprocessing.settings}, its configuration by "
            f"{settings_of(config)}"
        )
    return config, preprocessing


def _config(what: str, found) -> ConfigDict:
    # Those of a `SiameseMPUNet` that `build_model` does not take from elsewhere.
    of_model = _names(SiameseMPUNet) - {"axis_name", "compute_dtype", "parent", "name"}
    of_predict = _names(Options) - {"tile"}
    where = f"configuration of {what}"
    if not isinstance(found, dict) or not {"model", "data", "predict"} <= found.keys():
        raise _Damage(f"the {where} lacks model, data or predict")
    _exactly(f"{where}, in model,", found["model"], of_model)
    _exactly(f"{where}, in predict,", found["predict"], of_predict)
    of_data = {"spacing_mm", "percentiles", "patch_size"}
    if not isinstance(found["data"], dict) or not of_data <= found["data"].keys():
        raise _Damage(f"its {where}, in data, lacks one of {', '.join(sorted(of_data))}")
    try:
        config = ConfigDict(found)
        check_network(config)
        variable_shapes(build_model(config))
    except ConfigError:
        raise
    except Exception as error:  # values of any kind may stand there, and go wrong anywhere
        raise _Damage(f"the {where} builds no network ({type(error).__name__}: {error})") from error
    return config


def _variables(file, models: list[SiameseMPUNet]) -> list[dict]:
    """The tensors of an open file as variables of these networks."""
    wanted = {
        f"{number}/{name}": leaf
        for number, model in enumerate(models)
        for name, leaf in flatten_dict(variable_shapes(model), sep="/").items()
    }
    found = set(file.keys())
    for word, names in (("lacks", wanted.keys() - found), ("has unknown", found - wanted.keys())):
        if names:
            raise _Damage(f"it {word} tensors: {len(names)}, such as {min(names)}")
    for name, leaf in wanted.items():
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
        if _DTYPES.get(dtype) != leaf.dtype or shape != leaf.shape:
            raise _Damage(
                f"its tensor {name} is {shape} {dtype}, where its network has {leaf.shape} "
                f"{leaf.dtype}"
            )
    arrays = {name: file.get_tensor(name) for name in wanted}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise _Damage(f"its tensor {name} has numbers that are not finite")
    tree = unflatten_dict(arrays, sep="/")
    return [tree[str(number)] for number in range(len(models))]
