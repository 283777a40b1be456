"""Find the user's folder for what is made once on a machine and can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Return $XDG_CACHE_HOME/msseg_jax or ~/.cache/msseg_jax, created if necessary.

    Returns:
      The folder; None if it is not writable.
    """
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "msseg_jax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None
