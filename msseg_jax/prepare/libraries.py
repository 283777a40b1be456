"""Check that the libraries for preparing scans are installed, without importing them."""

from importlib.util import find_spec

from msseg_jax.system.errors import InputError

LIBRARIES = ("SimpleITK", "nilearn", "pydicom")


def check_libraries() -> None:
    """Raise InputError if a library is missing. The message names the command to install it."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"preparing scans needs {_listed(missing)}, which could not be found. In the "
            'folder of the repository, run: pip install ".[prepare]"'
        )


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
