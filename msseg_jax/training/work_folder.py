"""Hold the work folder of a run: make it, lock it, and clean it up."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.folder_lock import locked
from msseg_jax.training.processes import is_main, wait_for_all


@contextlib.contextmanager
def held(*folders: Path) -> Iterator[None]:
    """Make folders, and lock them against other runs until the block ends.

    Of several processes that train together, only the main process makes and locks the folders.
    Files that killed runs left unfinished are deleted. If the block raises an error before anything
    was stored, for example because the data are refused, the folders that it made are removed.

    Raises:
      InputError: a folder is not writable, or another run has locked it.
    """
    with contextlib.ExitStack() as stack:
        if is_main():
            stack.enter_context(_without_empty_folders(folders))
            for folder in folders:
                run = RunFolder(folder)
                run.create()
                stack.enter_context(locked(run.path, "--workdir"))
                run.clear_left_overs()
        wait_for_all("the work folder")
        yield


@contextlib.contextmanager
def _without_empty_folders(folders: tuple[Path, ...]) -> Iterator[None]:
    """After an error in the block, remove the folders that it made, as far as they are empty."""
    above = {path for folder in folders for path in (folder, *folder.parents)}
    missing = sorted((path for path in above if not path.exists()), reverse=True)
    try:
        yield
    except BaseException:
        for folder in missing:  # the inner ones first
            inner = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
            for path in (*inner, folder):
                with contextlib.suppress(OSError):  # it is not empty, or not there
                    path.rmdir()
        raise
