"""All fields of the configuration as text, for `--help`."""

import textwrap

from pydantic import BaseModel

from msseg_jax.configuration.section import expected
from msseg_jax.configuration.sections import Configuration

WIDTH = 96  # characters of a line


def list_fields() -> str:
    """Return every field with its default, its meaning and its range, section by section."""
    return "\n".join(_lines(Configuration, "config"))


def _lines(section: type[BaseModel], prefix: str) -> list[str]:
    lines, sections = [], []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections += ["", *_lines(field.annotation, f"{prefix}.{name}")]
            continue
        text = field.description or ""
        if limits := expected(field):
            text += f" ({limits})"
        lines.append(f"  --{prefix}.{name}={field.default!r}")
        lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines + sections
