"""Compare configurations: of a run and its continuation, and of processes that train together."""

import json

from pydantic import BaseModel

from msseg_jax.configuration.sections import Configuration


def differences(config: Configuration, stored: Configuration) -> list[str]:
    """Return a message for each field that prevents a configuration from continuing a run.

    Args:
      stored: the configuration with which the run was started.
    """
    ours, theirs = _flat(config), _flat(stored)
    free = _marked(Configuration, "free")
    return [
        f"config.{field} is {ours[field]}, but the run has {theirs[field]}"
        for field in sorted(ours)
        if ours[field] != theirs[field] and field not in free
    ]


def what_must_agree(config: Configuration) -> str:
    """Return, as text, the fields that must be equal in all processes that train together."""
    own = _marked(Configuration, "own")
    fields = {name: value for name, value in _flat(config).items() if name not in own}
    return json.dumps(fields, sort_keys=True)


def _flat(section: BaseModel, prefix: str = "") -> dict[str, object]:
    """Return all values of a section by dotted name, in the types that JSON has."""
    values: dict[str, object] = {}
    for name, value in section:
        if isinstance(value, BaseModel):
            values |= _flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return values


def _marked(section: type[BaseModel], mark: str, prefix: str = "") -> set[str]:
    """Return the dotted names of the fields for which `setting` was called with `mark` set."""
    names: set[str] = set()
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= _marked(field.annotation, mark, f"{prefix}{name}.")
        elif isinstance(field.json_schema_extra, dict) and field.json_schema_extra[mark]:
            names.add(f"{prefix}{name}")
    return names
