"""Configuration files: Python files with a `get_config()` that returns a ConfigDict.

    from msseg_jax.configuration.files import shipped

    def get_config():
        config = shipped("msseg2")
        config.train.batch_size = 8
        return config

A ConfigDict exists only while a configuration is being written. Everything else takes the typed
sections that `read` returns.
"""

import re
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import NoneType
from typing import get_args

from ml_collections import ConfigDict, config_dict

from msseg_jax.configuration.overrides import override
from msseg_jax.configuration.section import Section
from msseg_jax.configuration.sections import Configuration
from msseg_jax.system.errors import InputError

# In an installed package the folder `configs` lies in it, in a checkout beside it. Beside an
# installed package lie those of others.
_PACKAGE = Path(__file__).parents[1]
_IN_PACKAGE = _PACKAGE / "configs"
_FOLDER = _IN_PACKAGE if _IN_PACKAGE.is_dir() else _PACKAGE.parent / "configs"


def default() -> ConfigDict:
    """Return the paper's configuration, to be changed; fields that do not exist cannot be set."""
    return _as_config_dict(Configuration()).lock()


def shipped(name: str) -> ConfigDict:
    """Return a configuration that comes with the program, such as 'msseg2', to be changed."""
    if name not in names():
        raise InputError(f"no configuration {name!r} is shipped; expected {', '.join(names())}")
    return _run(_FOLDER / f"{name}.py")


def find(name: str) -> Path:
    """Return the file of a configuration.

    Args:
      name: the path of a file, or the name of a shipped configuration.

    Raises:
      InputError: there is no such file.
    """
    if name in names():
        return _FOLDER / f"{name}.py"
    path = Path(name)
    if path.is_file():
        return path
    raise InputError(
        f"--config={name}: no such file; expected the path of a configuration file, or one of "
        f"{', '.join(names())}"
    )


def names() -> list[str]:
    """Return the names of the shipped configurations."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")


def read(file: Path, overrides: Sequence[str] = ()) -> Configuration:
    """Read a configuration file, change the fields that are overridden, and check the result.

    Args:
      overrides: such as '--config.train.batch_size=8', as the user typed them.

    Raises:
      InputError: the file cannot be loaded, there is no such field, or a value cannot work.
    """
    return typed(override(_run(file), overrides))


def typed(config: ConfigDict) -> Configuration:
    """Return the typed sections of a ConfigDict.

    Raises:
      InputError: with a line for each field whose value cannot work.
    """
    return Configuration.of(config.to_dict(), "config")


def _run(file: Path) -> ConfigDict:
    """Return what get_config() of a file returns."""
    spec = spec_from_file_location(f"configuration_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"--config={file}: expected a Python file (.py)")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass in the file looks for its module
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may fail in any way
        reason = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
        reason = reason.partition(" Other fields present")[0]  # of ml_collections: all of them
        raise InputError(
            f"--config={file}: {reason:.300}; expected a get_config() that sets fields that exist "
            "to values of their type"
        ) from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={file}: get_config() returns no ConfigDict: {config!r:.80}")
    return config


def _as_config_dict(section: Section) -> ConfigDict:
    config = ConfigDict()
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            value = _as_config_dict(value)
        elif value is None:  # a plain None could not be overridden
            (kind,) = (one for one in get_args(field.annotation) if one is not NoneType)
            value = config_dict.placeholder(kind)
        config[name] = value
    return config
