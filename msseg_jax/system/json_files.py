"""Read the JSON files that this program writes."""

import json
from pathlib import Path
from typing import Any

from msseg_jax.system.errors import InputError
from msseg_jax.system.shown import shortened


def read_json(path: Path) -> Any:
    """Return the content of a JSON file that this program has written.

    Raises:
      InputError: the file cannot be read, or is damaged. The message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}). Restore it from a copy.") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise InputError(
            f"{path}: is damaged ({shortened(error)}). Restore it from a copy."
        ) from error
