"""Write data to the disk, so that they survive a power cut.

The system keeps written data in memory for a while. If the power fails, a renamed file may then be
empty, or a folder may lack a file. `fsync` waits until the data are on the disk.
"""

import errno
import os
from pathlib import Path

# File systems that cannot do this answer with one of these. Then nothing more can be done.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk.

    Raises:
      OSError: it cannot be written. Some file systems notice only now that they are full.
    """
    # Windows synchronises only files that are open for writing.
    _sync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk: its new, renamed and deleted files.

    Windows cannot do this. A folder that may be written but not read is left out.
    """
    if os.name != "nt" and os.access(path, os.R_OK):
        _sync(path, os.O_RDONLY)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything in it are on the disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(place, name))
        sync_folder(Path(place))


def _sync(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
