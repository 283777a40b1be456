"""Files that are whole, old or absent, but never half-written."""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from msseg_jax.errors import InputError


def read_json(path: Path):
    """The content of a JSON file of ours. Raises InputError, naming it, where it is damaged."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); give back a copy") from error
    except ValueError as error:  # no JSON, or no text at all
        raise InputError(f"{path}: is damaged ({error}); give back a copy") from error


def check_there(*paths: Path | None) -> None:
    """Raises InputError, naming all of them, for paths where there is nothing. None is passed over.

    What is read late is missed late otherwise: in the middle of the work.
    """
    missing = [str(path) for path in paths if path is not None and not path.exists()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file or folder; check the spelling")


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write(partial)` make a file beside `path`, with its suffixes, then rename it."""
    partial = path.with_name(f".partial-{uuid.uuid4().hex}-{path.name}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
