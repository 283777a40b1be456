"""A group of settings: frozen, typed, and valid once it exists."""

import json
from typing import Any, Self

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
        try:
            section = cls.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            lines = [_in_words(cls, problem, name) for problem in error.errors()]
            raise InputError("\n".join(lines)) from error
        if complete and (missing := section.missing()):
            raise InputError("\n".join(f"{name}.{field} is missing" for field in missing))
        return section

    def missing(self) -> list[str]:
        """Return the dotted names of the fields that were not given."""
        names = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name not in self.model_fields_set:
                names.append(name)
            parts = value if isinstance(value, tuple) else (value,)
            for part in parts:
                if isinstance(part, Section):
                    names += [f"{name}.{field}" for field in part.missing()]
        return names


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
            # The validator of a section names the fields that it looked at.
            return f"{place}: {message}" if field else message
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            return f"{place} is not a field"
        case "too_short":
            wanted = f"{problem['ctx']['min_length']} or more values"
        case _:
            wanted = message.removeprefix("Input should be ")
    if field and problem["type"].startswith(("less_than", "greater_than")):
        wanted = expected(field)
    value = problem["input"]
    return f"{place} is {value!r}; expected {wanted}"
