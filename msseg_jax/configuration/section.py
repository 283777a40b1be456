"""The base class of configuration sections: frozen, typed, and checked on creation."""

import json
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from msseg_jax.system.errors import InputError
from msseg_jax.system.shown import shown, shown_lines


class Section(BaseModel):
    """Settings that are checked when they are created, and cannot be changed.

    Two sections with the same values are equal and have the same hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def of(cls, fields: object, name: str, *, complete: bool = False) -> Self:
        """Create a section from plain values; lists become tuples.

        Args:
          fields: values by field name, in the types that JSON has.
          name: name of the section in error messages, such as 'config'.
          complete: require every field that was not added later. If false, all missing fields get
            their defaults.

        Raises:
          InputError: values are invalid or missing. The message has one line for each of them.
        """
        if complete and (missing := _missing(cls, fields)):
            raise InputError(shown_lines([f"{name}.{field} is missing" for field in missing]))
        try:
            return cls.model_validate_json(json.dumps(fields))
        except RecursionError as error:
            raise InputError(f"{name} is nested too deeply: {shown(fields)}") from error
        except ValidationError as error:
            problems = error.errors()
            # If items of a tuple are invalid, pydantic also reports that the tuple is too short.
            wrong_items = {problem["loc"][:-1] for problem in problems}
            lines = [
                _in_words(cls, problem, name)
                for problem in problems
                if problem["type"] != "too_short" or problem["loc"] not in wrong_items
            ]
            raise InputError(shown_lines(lines)) from error


def setting(
    default: Any,
    text: str,
    *,
    free: bool = False,
    own: bool = False,
    later: bool = False,
    **limits: Any,
) -> Any:
    """Declare a field of a section.

    Args:
      text: meaning of the field, with its unit.
      free: a run may be continued with another value.
      own: processes that train together may have different values.
      later: older files lack the field, because it did not exist yet. It then has its default.
      limits: ge, gt, le, lt and min_length of pydantic's `Field`.
    """
    marks: dict[str, JsonValue] = {"free": free, "own": own, "later": later}
    return Field(default, description=text, json_schema_extra=marks, **limits)


def expected(field: FieldInfo) -> str:
    """Return the range of a number in words; '' if the field has no limits."""
    limits = {}
    for limit in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(limit, name):
                limits[name] = _as_text(getattr(limit, name))
    match limits:
        case {"ge": low, "le": high}:
            return f"{low} to {high}"
        case {"ge": low, "lt": high}:
            return f"{low} or more and less than {high}"
        case {"gt": low, "le": high}:
            return f"more than {low} and at most {high}"
        case {"gt": low, "lt": high}:
            return f"between {low} and {high}"
        case {"ge": low}:
            return f"{low} or more"
        case {"gt": low}:
            return f"more than {low}"
    return ""


def _as_text(number: float) -> str:
    """Return a limit in words: all digits of a whole number, or a short form of another one."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def _missing(section: type[BaseModel], fields: object) -> list[str]:
    """Return the dotted names of the required fields of a section that `fields` lacks."""
    if not isinstance(fields, dict):
        return []  # not a section at all: the validation reports it
    names = []
    for name, field in section.model_fields.items():
        if name not in fields:
            if not _was_added_later(field):
                names.append(name)
            continue
        value = fields[name]
        parts = {name: value}
        if isinstance(value, list):
            parts = {f"{name}[{number}]": item for number, item in enumerate(value)}
        # The types of a tuple's items, or those of a union, or else the type of the field.
        inside = isinstance(value, list) or get_origin(field.annotation) in (Union, UnionType)
        kinds = get_args(field.annotation) if inside else (field.annotation,)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for place, part in parts.items():
                    names += [f"{place}.{missing}" for missing in _missing(kind, part)]
    return names


def added_later(section: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a section that older files lack, with their defaults."""
    fields = section.model_fields.items()
    return {name: field.default for name, field in fields if _was_added_later(field)}


def _was_added_later(field: FieldInfo) -> bool:
    marks = field.json_schema_extra
    return isinstance(marks, dict) and bool(marks["later"])


def _section_in(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, possibly as one of several types; else None."""
    kinds = get_args(field.annotation) or (field.annotation,)
    if get_origin(field.annotation) not in (None, Union, UnionType):
        return None
    return next(
        (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None
    )


def _in_words(section: type[BaseModel], problem: ErrorDetails, name: str) -> str:
    """Return a message about an invalid field: its place, its value and what is expected."""
    place = name
    field: FieldInfo | None = None
    for part in problem["loc"]:
        if isinstance(part, int):  # an item of a tuple: the limits of the field do not apply to it
            place, field = f"{place}[{part}]", None
            continue
        place, field = f"{place}.{part}", section.model_fields.get(part)
        if field and (inner := _section_in(field)):
            section, field = inner, None
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
        case "too_long":
            allowed = f"at most {problem['ctx']['max_length']} values"
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
    return f"{place} is {shown(value)}; expected {allowed}"
