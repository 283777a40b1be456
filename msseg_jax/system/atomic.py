"""Files that are whole, old or absent, but never half-written."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write(partial)` make a file beside `path`, with its suffixes, then rename it."""
    partial = path.with_name(f".partial-{uuid.uuid4().hex}-{path.name}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
