"""Fields of a configuration that the command line overrides, such as --config.seed=1."""

import difflib
import re
from collections.abc import Sequence
from types import NoneType
from typing import get_args

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from msseg_jax.configuration.sections import Configuration
from msseg_jax.system.errors import InputError


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Return a configuration with other values, as absl reads them.

    Args:
      overrides: such as '--config.train.batch_size=8', as the user typed them. '=None' empties a
        field that may be empty.

    Raises:
      InputError: there is no such field, or it cannot hold the value.
    """
    nones, arguments = [], [""]
    for argument in overrides:
        named = _find_field(argument)
        if named and argument.endswith("=None") and NoneType in get_args(named[1].annotation):
            nones.append(named[0])  # absl would read it as a text
        else:
            arguments.append(argument)
    values = flags.FlagValues()  # its own, so that nothing depends on the flags of the process
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=arguments
        )
        rest = values(arguments)
    except (flags.Error, ValueError) as error:
        raise InputError(str(error)) from error
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is not a flag; write flags as --name=value")
    changed: ConfigDict = holder.value
    changed.update_from_flattened_dict(dict.fromkeys(nones))
    return changed


def _find_field(argument: str) -> tuple[str, FieldInfo] | None:
    """Return the field that an argument sets, and its dotted name; None for a value on its own.

    Raises:
      InputError: there is no such field.
    """
    found = re.match(r"--?(?:no)?config\.([^=]*)", argument)
    if not found:
        return None
    place = "config"
    fields = Configuration.model_fields
    for name in found[1].split("."):
        if name not in fields:
            raise InputError(f"{argument}: {_not_a_field(place, name, list(fields))}")
        place = f"{place}.{name}"
        field = fields[name]
        kind = field.annotation
        fields = {}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = kind.model_fields
    if fields:
        raise InputError(f"{argument}: {place} is a section; expected one of its fields")
    return found[1], field


def _not_a_field(place: str, name: str, fields: list[str]) -> str:
    if not fields:
        return f"{place} has no parts; write a whole tuple, such as '(1,2)'"
    close = difflib.get_close_matches(name, fields, n=1)
    advice = (
        f"did you mean {place}.{close[0]}?" if close else f"expected one of {', '.join(fields)}"
    )
    return f"{place} has no field {name!r}; {advice}"
