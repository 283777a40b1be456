"""Keep compiled programs for the next process."""

import tempfile
from pathlib import Path

import jax

from msseg_jax.system.cache_folder import cache_folder

FOLDER = "compiled"  # in the user's cache folder


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles for a GPU in the user's cache folder.

    Compilation for a GPU takes most of the time of a single prediction. XLA's own timings of
    algorithms are kept, too. On a CPU nothing is kept: compilation is fast there, and programs
    depend on the exact processor. A folder that the user has set (JAX_COMPILATION_CACHE_DIR) stays.
    """
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # no stub
    if given or jax.default_backend() != "gpu":
        return
    folder = cache_folder()
    if folder is not None and _can_be_written(folder / FOLDER):
        jax.config.update("jax_compilation_cache_dir", str(folder / FOLDER))


def _can_be_written(folder: Path) -> bool:
    """Try it: XLA fails to compile if it cannot write its timings, as with a full quota."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError:
        return False
    return True
