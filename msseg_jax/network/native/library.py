"""Compile the native convolution on first use, keep it in a cache, and load it.

The kernels are compiled with the system's C++ compiler. The library is kept in the user's cache
folder, $XDG_CACHE_HOME/msseg_jax or ~/.cache/msseg_jax. If there is no compiler, or if anything
fails, a slower convolution in plain JAX is used, and a warning gives the reason. The environment
variable MSSEG_JAX_NATIVE=0 turns the native convolution off.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax

from msseg_jax.system.cache_folder import cache_folder

SOURCE = Path(__file__).parent / "kernels" / "library.cc"  # includes the other files of its folder
SWITCH = "MSSEG_JAX_NATIVE"
COMPILERS = ("c++", "g++", "clang++")  # tried in this order, after $CXX
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-w")
MACHINE_FLAGS = ("-march=native", "-mcpu=native", "")  # the first accepted one is used
TIMEOUT_S = 300
SYMBOLS = ("msseg_convolve", "msseg_kernel_gradient", "msseg_channel_sums")

logger = logging.getLogger(__name__)


@functools.cache
def state() -> tuple[bool, str]:
    """Return whether this process uses the native convolution, and the reason as text."""
    if os.environ.get(SWITCH, "1") == "0":
        return False, f"turned off by {SWITCH}=0"
    if jax.default_backend() != "cpu":
        return False, f"not needed on {jax.default_backend()}"
    try:
        library = _library()
        for symbol in SYMBOLS:
            handler = jax.ffi.pycapsule(getattr(library, symbol))
            jax.ffi.register_ffi_target(symbol, handler, platform="cpu")
    # RuntimeError: JAX rejects the handler. OSError: no temporary folder can be created.
    except (_Unavailable, OSError, RuntimeError) as error:
        logger.warning(
            "the native convolution is not available, so a slower convolution is used: %s", error
        )
        return False, str(error)
    products = "bfloat16 and float32" if library.msseg_multiplies_bfloat16() else "float32"
    return True, f"compiled for this CPU: {library.msseg_lanes()} lanes, multiplies {products}"


def available() -> bool:
    """Return whether this process uses the native convolution. The first call may compile it."""
    return state()[0]


def multiplies_bfloat16() -> bool:
    """Return whether the kernels multiply bfloat16 numbers without converting them to float32.

    The compiler must have found instructions for it (AVX512-BF16).
    """
    return available() and _library().msseg_multiplies_bfloat16()


def find_compiler() -> str | None:
    """Return the path of the C++ compiler to use; None if there is none."""
    chosen = os.environ.get("CXX")
    names = filter(None, (chosen, *COMPILERS))
    found = next(filter(None, map(shutil.which, names)), None)
    if chosen and shutil.which(chosen) is None:
        logger.warning(
            "CXX is %r, but there is no such program, so %s is used. Set CXX to the name or the "
            "path of a C++ compiler, without options.", chosen, found or "no compiler",
        )  # fmt: skip
    return found


class _Unavailable(Exception):
    """The library is not available. The message gives the reason and says what to do."""


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the compiled library, from the cache if it is there and undamaged.

    Raises:
      _Unavailable: There is no compiler, or the library cannot be compiled or loaded.
    """
    key = hashlib.sha256()
    compiler = find_compiler()
    if compiler is None:
        raise _Unavailable(
            "there is no C++ compiler. Install one (Debian and Ubuntu: apt install g++)."
        )
    sources = sorted(SOURCE.parent.glob("*.*"))
    for part in (
        *(source.read_text(encoding="utf-8") for source in sources),
        repr(FLAGS),
        _cpu(),
        version("jaxlib"),
        compiler,
    ):
        key.update(part.encode())
    name = f"convolution-{key.hexdigest()[:20]}"
    folder = cache_folder()
    if folder is None:  # compile it for this process only
        with tempfile.TemporaryDirectory(prefix="msseg_jax_") as temporary:
            return _load(_compile(compiler, Path(temporary), name))
    library = _cached(folder, name) or _compile(compiler, folder, name)
    return _load(library)


def _cpu() -> str:
    """Return a text that differs for CPUs with different instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.platform() + platform.processor()
    fields = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(sorted({line for line in lines if line.startswith(fields)}))


def _compile(compiler: str, folder: Path, name: str) -> Path:
    """Compile the library into `folder` and return its path.

    It is written under a temporary name and then renamed, so several processes may compile it at
    the same time.

    Raises:
      _Unavailable: The compiler fails or cannot be run.
    """
    library = folder / f"{name}.so"
    partial = folder / f".partial-{os.getpid()}-{library.name}"
    include = f"-I{jax.ffi.include_dir()}"
    try:
        for machine_flag in MACHINE_FLAGS:
            flags = [*FLAGS, *filter(None, [machine_flag])]
            command = [compiler, *flags, include, str(SOURCE), "-o", str(partial)]
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
            )
            if done.returncode == 0:
                break
        else:
            reasons = done.stderr.strip().splitlines() or ["it gave no reason"]
            raise _Unavailable(f"{compiler} failed: {reasons[-1][:300]}")
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
        os.replace(partial, library)
        partial.write_text(digest, encoding="utf-8")
        os.replace(partial, library.with_suffix(".sha256"))
    except (OSError, subprocess.SubprocessError) as error:
        raise _Unavailable(f"{compiler} could not be run: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return library


def _cached(folder: Path, name: str) -> Path | None:
    """Return the cached library; None if it is missing or has changed since it was compiled."""
    library = folder / f"{name}.so"
    try:
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
        return (
            library
            if digest == library.with_suffix(".sha256").read_text(encoding="utf-8")
            else None
        )
    except OSError:
        return None


def _load(library: Path) -> ctypes.CDLL:
    """Load the library, and declare the type of its function for Python.

    Raises:
      _Unavailable: It cannot be loaded.
    """
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise _Unavailable(f"{library} cannot be loaded: {error}") from error
    loaded.msseg_multiplies_bfloat16.restype = ctypes.c_bool
    return loaded
