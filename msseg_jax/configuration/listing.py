"""List all fields of the configuration, as text for `--help` and for the reference pages."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from pydantic import BaseModel

from msseg_jax.configuration.section import expected
from msseg_jax.configuration.sections import Configuration

WIDTH = 96  # characters per line


class ListedField(NamedTuple):
    """A field, as documentation shows it."""

    section: str  # such as 'config.data'
    name: str
    default: Any
    text: str  # meaning, with its unit
    limits: str  # accepted values, in words; may be empty


def listed_fields() -> Iterator[ListedField]:
    """Yield every field of the configuration, section by section."""
    return _fields(Configuration, "config")


def list_fields() -> str:
    """Return the fields, grouped by section, each with its default, its meaning and its range."""
    sections = groupby(listed_fields(), key=lambda field: field.section)
    return "\n\n".join("\n".join(map(_as_text, fields)) for _, fields in sections)


def _fields(section: type[BaseModel], name: str) -> Iterator[ListedField]:
    """Yield the fields of a section, then those of the sections inside it."""
    inner = []
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner.append((field.annotation, f"{name}.{key}"))
        else:
            text, limits = field.description or "", expected(field) or ""
            yield ListedField(name, key, field.default, text, limits)
    for one, path in inner:
        yield from _fields(one, path)


def _as_text(field: ListedField) -> str:
    limits = f" ({field.limits})" if field.limits else ""
    indent = " " * 6
    lines = textwrap.wrap(
        field.text + limits, WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    return "\n".join([f"  --{field.section}.{field.name}={field.default!r}", *lines])
