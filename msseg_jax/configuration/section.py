"""A group of settings: frozen, typed, and valid once it exists."""

import json
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from msseg_jax.system.errors import InputError


class Section(BaseModel):
    """Settings that are checked when they are made, and never change.

    Two sections with the same values are equal and have the same hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def of(cls, fields: object, name: str, *, complete: bool = False) -> Self:
        """Return the section with these values; lists become tuples.

        Args:
          fields: plain values by name, as JSON holds them.
          name: what the messages call it, such as 'config'.
          complete: whether every field must be given; otherwise defaults fill the gaps.

        Raises:
          InputError: with a line for each field whose value cannot work.
        """
        if complete and (missing := _missing(cls, fields)):
            raise InputError("\n".join(f"{name}.{field} is missing" for field in missing))
        try:
            return cls.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            problems = error.errors()
            # pydantic also calls a tuple too short whose items are wrong.
            wrong_items = {problem["loc"][:-1] for problem in problems}
            lines = [
                _in_words(cls, problem, name)
                for problem in problems
                if problem["type"] != "too_short" or problem["loc"] not in wrong_items
            ]
            raise InputError("\n".join(lines)) from error


def setting(
    default: Any, text: str, *, free: bool = False, own: bool = False, **limits: Any
) -> Any:
    """Declare a field of a section.

    Args:
      text: what it means, with its unit.
      free: whether a run may be continued with another value.
      own: whether processes that train together may have different values.
      limits: ge, gt, le, lt, min_length, as pydantic's `Field` takes them.
    """
    marks: dict[str, JsonValue] = {"free": free, "own": own}
    return Field(default, description=text, json_schema_extra=marks, **limits)


def expected(field: FieldInfo) -> str:
    """Return the values that a field may have, in words; empty if any will do."""
    limits = {}
    for limit in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(limit, name):
                limits[name] = getattr(limit, name)
    match limits:
        case {"ge": low, "le": high}:
            return f"{low:g} to {high:g}"
        case {"ge": low, "lt": high}:
            return f"{low:g} or more and less than {high:g}"
        case {"gt": low, "le": high}:
            return f"more than {low:g} and at most {high:g}"
        case {"gt": low, "lt": high}:
            return f"between {low:g} and {high:g}"
        case {"ge": low}:
            return f"{low:g} or more"
        case {"gt": low}:
            return f"more than {low:g}"
    return ""


def _missing(section: type[BaseModel], fields: object) -> list[str]:
    """Return the dotted names of the fields of a section that are not among `fields`."""
    if not isinstance(fields, dict):
        return []  # validation refuses it
    names = []
    for name, field in section.model_fields.items():
        if name not in fields:
            names.append(name)
            continue
        value = fields[name]
        parts = {name: value}
        if isinstance(value, list):
            parts = {f"{name}[{number}]": item for number, item in enumerate(value)}
        # Of the field itself, or of its items if it is a tuple.
        kinds = get_args(field.annotation) if isinstance(value, list) else (field.annotation,)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for place, part in parts.items():
                    names += [f"{place}.{missing}" for missing in _missing(kind, part)]
    return names


def _in_words(section: type[BaseModel], problem: ErrorDetails, name: str) -> str:
    """Return what is wrong with a field: its place, its value and what was expected."""
    place = name
    field: FieldInfo | None = None
    for part in problem["loc"]:
        if isinstance(part, int):  # of a tuple, whose items have limits of their own
            place, field = f"{place}[{part}]", None
            continue
        place, field = f"{place}.{part}", section.model_fields.get(part)
        if field and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section, field = field.annotation, None
    message = problem["msg"]
    match problem["type"]:
        case "value_error":
            message = message.removeprefix("Value error, ")
            if field:
                return f"{place}: {message}"
            # The validator of a section begins each line with the name of a field.
            return "\n".join(f"{place}.{line}" for line in message.split("\n"))
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            return f"{place} is not a field"
        case "too_short":
            allowed = f"{problem['ctx']['min_length']} or more values"
        case "greater_than_equal":
            allowed = f"{problem['ctx']['ge']:g} or more"
        case "greater_than":
            allowed = f"more than {problem['ctx']['gt']:g}"
        case "less_than_equal":
            allowed = f"at most {problem['ctx']['le']:g}"
        case "less_than":
            allowed = f"less than {problem['ctx']['lt']:g}"
        case _:
            allowed = message.removeprefix("Input should be ")
    if field and problem["type"].startswith(("less_than", "greater_than")):
        allowed = expected(field)
    value = problem["input"]
    return f"{place} is {value!r}; expected {allowed}"
