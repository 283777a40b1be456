"""JSON files of this program."""

import json
from pathlib import Path

from msseg_jax.system.errors import InputError


def read_json(path: Path):
    """The content of a JSON file of ours. Raises InputError, naming it, where it is damaged."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); give back a copy") from error
    except ValueError as error:  # no JSON, or no text at all
        raise InputError(f"{path}: is damaged ({error}); give back a copy") from error
