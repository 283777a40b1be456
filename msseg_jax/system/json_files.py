"""JSON files of this program."""

import json
from pathlib import Path
from typing import Any

from msseg_jax.system.errors import InputError


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of ours. Raise InputError, naming it, if it is damaged."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); give back a copy") from error
    except (ValueError, RecursionError) as error:  # no JSON, or no text at all
        raise InputError(f"{path}: is damaged ({error}); give back a copy") from error
