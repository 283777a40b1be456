"""Lock a folder, so that two processes do not write in it at the same time.

The lock belongs to a file, `.lock`, that the process keeps open. The system releases it when the
process ends in any way, also after `kill -9` or a crash. A file that is left behind locks nothing.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msseg_jax.system.errors import InputError

NAME = ".lock"
# A lock that another process holds gives one of these errors. Any other error means that the file
# system has no locks.
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Lock a folder until the block ends.

    If the file system has no locks, a warning is printed, and the block runs without a lock.

    Args:
      folder: an existing folder.
      flag: the flag that gives the folder, for the message, such as '--workdir'.

    Raises:
      InputError: another process has locked the folder. The message names the process.
    """
    path = folder / NAME
    descriptor = _open_locked(path, folder, flag)
    try:
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.ctime()}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
        yield
    finally:
        if os.name == "nt":  # where only a closed file can be deleted
            os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if os.name != "nt":
            os.close(descriptor)  # only now, so that nobody else has locked the deleted file


def _open_locked(path: Path, folder: Path, flag: str) -> int:
    """Open and lock a file; return its descriptor."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(
                f"{flag}={folder}: {path} cannot be written ({error.strerror}); expected a folder "
                f"to write in. Change its permissions, or choose another {flag}."
            ) from error
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _HELD:
                owner = _owner(path)
                os.close(descriptor)
                raise InputError(
                    f"{flag}={folder} is in use by {owner}. Two runs would overwrite each other's "
                    f"files. Wait until that process ends, or choose another {flag}."
                ) from error
            logger.warning(
                "%s: its file system has no locks (%s). Make sure that no other run uses it.",
                folder, error.strerror,
            )  # fmt: skip
            return descriptor
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its owner has just deleted it, so another file is to be locked


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    """Return the process that holds the lock, in words."""
    try:
        owner: Any = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']} (since {owner['since']})"
    except (OSError, ValueError, TypeError, KeyError):  # it has not been written yet
        return "another process"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # Windows locks bytes, and nobody can read a locked byte: lock one far behind the content.
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # Not `lockf`: its lock would be lost when any part of this process closes the file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
