"""Write files and folders completely or not at all.

Readers find the complete new version, the old one, or none, but never a half-written one. This also
holds after a power cut, because the data are on the disk before the rename, and the new name is
before the function returns.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from msseg_jax.system.durability import sync_file, sync_folder, sync_tree

ROOMY_NAME = 120  # bytes; longer names leave no room for additions, because systems allow 255
_PARTIAL_FILE = re.compile(r"\.partial-[0-9a-f]{12}(\.|$)")  # see `write_beside`


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Write the file `path` completely or not at all.

    Call `write(partial)` with a temporary path in the same folder and with the same suffixes. Then
    rename this file to `path`.
    """
    partial = path.with_name(f".partial-{uuid.uuid4().hex[:12]}{_suffixes(path)}")
    try:
        write(partial)
        sync_file(partial)
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def clear_partial_files(folder: Path) -> None:
    """Delete the files in a folder that killed processes left unfinished.

    Call this only for a folder in which no other process writes (see `folder_lock`).
    """
    for path in folder.glob(".partial-*"):
        if _PARTIAL_FILE.match(path.name):
            path.unlink(missing_ok=True)


def _suffixes(path: Path) -> str:
    """Return '.nii.gz' for 'A.B.NII.GZ': what writers look at, in lower case.

    The rest of the name is left out. It may be so long that nothing can be added to it.
    """
    suffixes = Path(path.name.lower()).suffixes
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


@contextlib.contextmanager
def whole_folder(place: Path, *, replace: bool = False) -> Iterator[Path]:
    """Make the folder `place` completely or not at all.

    Yields an empty, hidden folder next to `place`. If the block succeeds, this folder is renamed to
    `place`. If the block fails, it is deleted. Missing parent folders are made. Before the block,
    the folders that killed processes left behind are cleared (see `clear_left_overs`).

    Args:
      replace: whether to replace a folder `place` that exists already. The old folder is moved
        aside, and deleted when the new one is in place. So one of the two always exists under
        some name.

    Raises:
      FileExistsError: `place` exists when the block ends, and `replace` is not set. Or another
        process has replaced it at the same moment. Then `place` is the folder of that process.
    """
    place = place.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    clear_left_overs(place)
    new, old = _own_name(place, "partial"), _own_name(place, "replaced")
    try:
        # Within the try block, because a signal may arrive while the folder is made.
        new.mkdir()
        yield new
        sync_tree(new)
        if replace:
            with contextlib.suppress(FileNotFoundError):  # it is new, or was just moved away
                place.rename(old)
        elif place.exists():
            # Checked here, because a rename would replace an empty folder silently.
            raise FileExistsError(f"{place}: exists already. Delete it or choose another place.")
        _rename_to_free_place(new, place)
        sync_folder(place.parent)
    finally:
        if old.exists() and not place.exists():
            with contextlib.suppress(FileExistsError):  # then the other folder is newer
                _rename_to_free_place(old, place)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def _rename_to_free_place(new: Path, place: Path) -> None:
    try:
        new.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise FileExistsError(
            f"{place}: another process has written it at the same time, and its result is kept. "
            "Do not let two commands write to one place."
        ) from error


def clear_left_overs(place: Path) -> None:
    """Clean up after processes of this machine that were killed while they made `place`.

    Their unfinished folders are deleted. A process that was killed while it replaced `place` may
    have moved the old folder aside. Such a folder is moved back if there is no `place`.
    """
    for kind in ("replaced", "partial"):
        for folder in place.parent.glob(f".{kind}-{_MACHINE}-*"):
            process, _, name = folder.name.removeprefix(f".{kind}-{_MACHINE}-").partition("-")
            if name != _label(place) or not process.isdigit() or _is_another(int(process)):
                continue
            if kind == "replaced" and not place.exists():
                folder.rename(place)
            else:
                shutil.rmtree(folder, ignore_errors=True)


_MACHINE = socket.gethostname()


def _own_name(place: Path, kind: str) -> Path:
    """Return a hidden path next to `place` that contains the number of this process."""
    return place.with_name(f".{kind}-{_MACHINE}-{os.getpid()}-{_label(place)}")


def _label(place: Path) -> str:
    """Return the name of a folder, or a short text instead of a name that leaves no room."""
    name = os.fsencode(place.name)
    return place.name if len(name) <= ROOMY_NAME else hashlib.sha256(name).hexdigest()[:12]


def _is_another(process: int) -> bool:
    """Return whether `process` is the number of another process that is running.

    This process does not count. It has made nothing yet, so a folder with its number was left by
    an earlier process with the same number, which is common in containers.
    """
    return process != os.getpid() and psutil.pid_exists(process)
