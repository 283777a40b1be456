"""Find and read configuration files: Python files with a `get_config()` that returns a ConfigDict.

For example:

    from msseg_jax.configuration.files import shipped

    def get_config():
        config = shipped("msseg2")
        config.train.batch_size = 8
        return config

A ConfigDict is used only to write a configuration. All other code uses the typed sections that
`read` returns.
"""

import contextlib
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

# In an installed package, the folder `configs` is inside it. In a checkout, it is next to it. A
# folder `configs` next to an installed package belongs to another package, so look inside first.
_PACKAGE = Path(__file__).parents[1]
_IN_PACKAGE = _PACKAGE / "configs"
_FOLDER = _IN_PACKAGE if _IN_PACKAGE.is_dir() else _PACKAGE.parent / "configs"

LONGEST_VALUE = 10_000  # characters of a text, or items of a tuple


def default() -> ConfigDict:
    """Return the paper's configuration. Its fields can be changed, but none can be added."""
    return _as_config_dict(Configuration()).lock()


def shipped(name: str) -> ConfigDict:
    """Return a configuration that comes with the program, such as 'msseg2'. You can modify it."""
    if name not in names():
        raise InputError(f"{name!r} is not a shipped configuration; expected {', '.join(names())}")
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
    with contextlib.suppress(OSError):  # such as a name that is too long
        if path.is_file():
            return path
    raise InputError(
        f"--config={name:.300}: no such file; expected the path of a configuration file, or the "
        f"name of a shipped configuration: {', '.join(names())}"
    )


def names() -> list[str]:
    """Return the names of the shipped configurations."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")


def read(file: Path, overrides: Sequence[str] = ()) -> Configuration:
    """Read a configuration file, apply the overrides, and check the result.

    Args:
      overrides: flags as the user typed them, such as '--config.train.batch_size=8'.

    Raises:
      InputError: the file cannot be loaded, a field does not exist, or a value is invalid.
    """
    return typed(override(_run(file), overrides))


def typed(config: ConfigDict) -> Configuration:
    """Convert a ConfigDict to typed sections, and check its values.

    Raises:
      InputError: values are invalid. The message has one line for each of them.
    """
    return Configuration.of(config.to_dict(), "config")


def _run(file: Path) -> ConfigDict:
    """Load a configuration file, and return the result of its get_config()."""
    spec = spec_from_file_location(f"configuration_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"--config={file}: expected a Python file (.py)")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the file look up their module here
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        reason = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
        reason = reason.partition(" Other fields present")[0]  # a long list by ml_collections
        raise InputError(
            f"--config={file}: {reason:.300}; expected a function get_config() that sets existing "
            "fields to values of their type"
        ) from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"--config={file}: get_config() returned {config!r:.80}; expected a ConfigDict"
        )
    _check_fields(config, default(), f"--config={file}: config")
    return config


def _check_fields(config: ConfigDict, like: ConfigDict, name: str) -> None:
    """Raise InputError if fields are missing, or if a value is too long to be handled."""
    if missing := [key for key in like if key not in config]:
        raise InputError(f"{name}.{missing[0]} is missing; start from default() or shipped(NAME)")
    for key, value in config.items(preserve_field_references=True):
        if isinstance(value, str | list | tuple) and len(value) > LONGEST_VALUE:
            raise InputError(
                f"{name}.{key} has {len(value)} characters or items; expected at most "
                f"{LONGEST_VALUE}"
            )
        if isinstance(value, ConfigDict) and isinstance(like.get(key), ConfigDict):
            _check_fields(value, like[key], f"{name}.{key}")


def _as_config_dict(section: Section) -> ConfigDict:
    config = ConfigDict()
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            value = _as_config_dict(value)
        elif value is None:  # a plain None has no type, so it could not be overridden
            (kind,) = (one for one in get_args(field.annotation) if one is not NoneType)
            value = config_dict.placeholder(kind)
        config[name] = value
    return config
