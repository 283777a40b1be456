"""Work on many things that continues after one of them fails."""

import contextlib
from collections.abc import Iterator

from tqdm import tqdm

from msseg_jax.system.errors import InputError


@contextlib.contextmanager
def continuing_after(name: str, failures: dict[str, str], note: str = "") -> Iterator[None]:
    """Note an error of the block in `failures`, print it, and continue after the block.

    Ctrl-C is no error, and ends the work.

    Args:
      name: of what the block works on.
      failures: {name: what went wrong}, to which this adds.
      note: is printed behind the error.
    """
    try:
        yield
    except Exception as error:  # whatever it is, the others' results are expected
        failures[name] = reason_of(error)
        tqdm.write(f"{name}: failed: {failures[name]}{note}")


def reason_of(error: Exception) -> str:
    """Return what went wrong in words. An error of the code or a library comes with its type."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
