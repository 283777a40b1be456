"""Check the paths that a user gives, before any work begins."""

import contextlib
import tempfile
from pathlib import Path

from msseg_jax.system.errors import InputError


def check_there(*paths: Path | None) -> None:
    """Raise InputError if any of the paths does not exist. The message names all missing paths.

    Arguments that are None are skipped. Without this check, a missing file that is read late would
    be noticed only in the middle of the work.
    """
    missing = [str(path) for path in paths if path is not None and not path.exists()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file or folder. Check the spelling.")


def check_folder(flag: str, folder: Path, expected: str) -> None:
    """Raise InputError if a folder does not exist. The message names the flag.

    Args:
      flag: the flag or field that gives the folder, such as '--dataset'.
      folder: its value.
      expected: what the folder should be, for the message.
    """
    if not folder.is_dir():
        raise InputError(f"{flag}={folder}: no such folder. Expected {expected}.")


def check_utf8(text: str) -> None:
    """Raise InputError if an argument of the command line has bytes that are not UTF-8 text.

    The JSON files of a run and its checkpoints can only hold valid text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode(errors="backslashreplace").decode()
        raise InputError(
            f"{shown}: contains bytes that are not valid UTF-8; expected a path of valid text. "
            "Rename the file or folder, or make a symbolic link to it."
        ) from error


def check_outside(path: Path, folder: Path, problem: str, *, may_be_it: bool = False) -> None:
    """Raise InputError if `path` lies in `folder`, or is `folder`.

    Args:
      problem: what is wrong in this case, for the message, such as "lies among the scans".
      may_be_it: whether `path` may be `folder` itself.
    """
    place, forbidden = path.resolve(), folder.resolve()
    if forbidden in place.parents or (place == forbidden and not may_be_it):
        raise InputError(f"{path}: {problem}. Choose another place.")


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether the name of a file ends in one of the suffixes, in lower or upper case."""
    return path.name.lower().endswith(suffixes)


def check_writable_folder(folder: Path) -> None:
    """Raise InputError if nothing can be written into a folder. It may not exist yet.

    Nothing is made, unlike by `check_output`. So a command that is refused leaves no empty folder.
    """
    place = folder.absolute()
    try:
        _write_into(next(one for one in (place, *place.parents) if one.exists()))
    except OSError as error:
        raise InputError(
            f"{folder}: nothing can be written into this folder ({error.strerror or error}). "
            "Choose another folder."
        ) from error


def _write_into(folder: Path) -> None:
    """Raise OSError if a folder is not writable, which shows only when something is written."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".partial-"):
        pass


def check_output(path: Path, suffixes: tuple[str, ...]) -> Path:
    """Return the path of a file to write. Create its folder, and check that it can be written.

    Raises:
      InputError: the name ends in none of the suffixes, is only a suffix, or is too long. The path
        is a folder, or nothing can be written into its folder.
    """
    if not has_suffix(path, suffixes):
        raise InputError(f"{path}: expected a name that ends in {' or '.join(suffixes)}.")
    if path.name.lower() in suffixes:  # a hidden file that no viewer recognises
        raise InputError(
            f"{path}: is only a suffix. Expected a name before it, such as new{path.name.lower()}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"{path}: is a folder. Expected the name of a file to write.")
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # the system refuses a name that is too long
        _write_into(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}). Choose another name or folder."
        ) from error
    return path
