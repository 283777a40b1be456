"""Continue with the other items after work on one of them fails."""

import contextlib
from collections.abc import Iterator

from tqdm import tqdm

from msseg_jax.system.errors import InputError


@contextlib.contextmanager
def continuing_after(name: str, failures: dict[str, str], note: str = "") -> Iterator[None]:
    """Record an error of the block in `failures`, print it, and continue after the block.

    Ctrl-C does not count as an error: it ends the work.

    Args:
      name: name of the item that the block works on.
      failures: {name: what went wrong}. An error of the block is added to it.
      note: text that is printed after the error.
    """
    try:
        yield
    except Exception as error:  # any error: the other items are still to be done
        failures[name] = reason_of(error)
        tqdm.write(f"{name}: failed: {failures[name]}{note}")


def reason_of(error: Exception) -> str:
    """Return what went wrong as text.

    The message of an InputError is enough, and so is what the system says of a disk. Any other
    error comes from the code or a library, so its type is added.
    """
    if isinstance(error, MemoryError):
        advice = "Close other programs, or use a machine with more memory."
        return f"memory ran out. {advice} {error}".strip()
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        return f"reading or writing a file failed ({error.strerror}). Check the disk."
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on the host or on a device. JAX has no own error for this."""
    text = str(error).lower()
    # The code is also that of a kernel that needs more shared memory than the card has, and of a
    # message that is too long for another process.
    exhausted = "resource_exhausted" in text and "alloc" in text
    return isinstance(error, MemoryError) or exhausted or "out of memory" in text
