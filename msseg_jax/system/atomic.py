"""Files and folders that are whole, old or absent, but never half-written."""

import contextlib
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write(partial)` make a file beside `path`, with its suffixes, then rename it."""
    partial = path.with_name(f".partial-{uuid.uuid4().hex}-{path.name}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(place: Path, *, replace: bool = False) -> Iterator[Path]:
    """Make the folder `place` completely or not at all.

    Yields an empty, hidden folder beside `place`. It becomes `place` when the block ends well, and
    it is deleted when the block fails. Parent folders are made. What killed processes of this
    machine left of the same folder is cleared first.

    Args:
      replace: A folder that is there already is replaced. It moves aside and is deleted when the
        new one is in its place, so that one of the two always exists under some name.

    Raises:
      FileExistsError: `place` exists at the end, and `replace` is not set.
    """
    place = place.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    clear_left_overs(place)
    new, old = _own_name(place, "partial"), _own_name(place, "replaced")
    try:
        # In here, because a signal may arrive while this makes the folder.
        new.mkdir()
        yield new
        if replace and place.exists():
            place.rename(old)
        elif place.exists():
            # A rename replaces an empty folder silently.
            raise FileExistsError(f"{place}: exists already")
        new.rename(place)
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def clear_left_overs(place: Path) -> None:
    """Delete what killed processes of this machine left of `place`, and give back what they moved.

    A process that was killed while it replaced `place` may have moved the old folder aside.
    """
    for kind in ("replaced", "partial"):
        for folder in place.parent.glob(f".{kind}-{_MACHINE}-*"):
            process, _, name = folder.name.removeprefix(f".{kind}-{_MACHINE}-").partition("-")
            if name != place.name or not process.isdigit() or _is_another(int(process)):
                continue
            if kind == "replaced" and not place.exists():
                folder.rename(place)
            else:
                shutil.rmtree(folder, ignore_errors=True)


_MACHINE = socket.gethostname()


def _own_name(place: Path, kind: str) -> Path:
    """Return a hidden name beside `place` that tells which process uses it."""
    return place.with_name(f".{kind}-{_MACHINE}-{os.getpid()}-{place.name}")


def _is_another(process: int) -> bool:
    """Return whether the process lives. This one does not count: it has made nothing yet.

    In a container, an earlier process had the same number.
    """
    return process != os.getpid() and psutil.pid_exists(process)
