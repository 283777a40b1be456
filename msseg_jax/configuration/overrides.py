"""Override fields of a configuration by command-line flags such as --config.seed=1."""

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

from msseg_jax.configuration.section import expected
from msseg_jax.configuration.sections import Configuration
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_utf8


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Return a configuration with the overridden values. absl parses the flags.

    Args:
      overrides: flags as the user typed them, such as '--config.train.batch_size=8'. '=None' sets
        a field to None, if that is a possible value of the field.

    Raises:
      InputError: a field does not exist or is given twice, or a value does not have the type of
        its field.
    """
    nones, arguments = [], [""]
    fields: set[str] = set()
    for argument in overrides:
        check_utf8(argument)
        named = _find_field(argument)
        if named and named[0] in fields:
            raise InputError(f"config.{named[0]} is given twice; expected one value. Give it once.")
        fields |= {named[0]} if named else set()
        if named and argument.endswith("=None") and NoneType in get_args(named[1].annotation):
            nones.append(named[0])  # absl would parse it as the text 'None'
        else:
            arguments.append(argument)
    values = flags.FlagValues()  # not the global flags of the process
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=arguments
        )
        rest = values(arguments)
    except flags.IllegalFlagValueError as error:
        raise InputError(_not_a_value(error)) from error
    except (flags.Error, ValueError) as error:
        raise InputError(str(error)) from error
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is not a flag; write flags as --name=value")
    changed: ConfigDict = holder.value
    changed.update_from_flattened_dict(dict.fromkeys(nones))
    return changed


def _find_field(argument: str) -> tuple[str, FieldInfo] | None:
    """Return the dotted name and the definition of the field that an argument sets.

    Returns:
      None if the argument is not a flag of the configuration.

    Raises:
      InputError: the field does not exist.
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


def _not_a_value(error: flags.IllegalFlagValueError) -> str:
    """Return a message about a value that absl cannot convert to the type of its field."""
    # absl writes "flag --config.FIELD=VALUE: REASON". The reason is an error of Python's `int()`
    # or `float()`, and does not say what is expected.
    argument = str(error).removeprefix("flag ").removesuffix(f": {error.__context__}")
    named = _find_field(argument)
    if named is None:
        return str(error)
    field = named[1]
    kinds = {int: "a whole number", float: "a number", bool: "true or false"}
    types = get_args(field.annotation) or (field.annotation,)
    words = [word for kind, word in kinds.items() if kind in types]
    if limits := expected(field):
        words.append(limits)
    return f"{argument}: expected {', '.join(words)}"


def _not_a_field(place: str, name: str, fields: list[str]) -> str:
    if not fields:
        return f"{place} cannot be set in parts; set its whole value, such as '(1,2)' for a tuple"
    close = difflib.get_close_matches(name, fields, n=1)
    advice = (
        f"did you mean {place}.{close[0]}?" if close else f"expected one of {', '.join(fields)}"
    )
    return f"{place} has no field {name!r}; {advice}"
