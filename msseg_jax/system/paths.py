"""Checks of the paths that a user gives, before any work."""

from pathlib import Path

from msseg_jax.system.errors import InputError


def check_there(*paths: Path | None) -> None:
    """Raise InputError for paths where there is nothing. It names all of them. None is skipped.

    Otherwise a file that is read late would be missed in the middle of the work.
    """
    missing = [str(path) for path in paths if path is not None and not path.exists()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file or folder; check the spelling")


def check_outside(path: Path, folder: Path, problem: str, *, may_be_it: bool = False) -> None:
    """Raise InputError if `path` lies in `folder`, or is `folder`.

    Args:
      problem: what is wrong then, for the message, such as "lies among the scans".
      may_be_it: `path` may be `folder` itself.
    """
    place, forbidden = path.resolve(), folder.resolve()
    if forbidden in place.parents or (place == forbidden and not may_be_it):
        raise InputError(f"{path}: {problem}; choose a place elsewhere")
