"""Checks of the paths that a user gives, before any work."""

from pathlib import Path

from msseg_jax.system.errors import InputError


def check_there(*paths: Path | None) -> None:
    """Raises InputError, naming all of them, for paths where there is nothing. None is passed over.

    What is read late is missed late otherwise: in the middle of the work.
    """
    missing = [str(path) for path in paths if path is not None and not path.exists()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file or folder; check the spelling")
