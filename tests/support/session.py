"""Set up the process of the tests. Import this before anything asks JAX for a device.

All processes of a test session share a folder of compiled programs. Each session makes a new
folder, so it starts without compiled programs, and the native convolution is compiled once, as on a
new machine.
"""

import os
import signal
import tempfile
from pathlib import Path

import jax

from msseg_jax.network.native import library

ROOT = Path(__file__).parents[2]  # folder of the repository
DATA = ROOT / "tests" / "support" / "files"
SHARED = ROOT.parent / "shared"  # real data; tests that need it are skipped without it

if "MSSEG_JAX_TESTS" not in os.environ:  # if not set by another process of the session
    _session = tempfile.TemporaryDirectory(prefix="msseg_jax_tests_")
    os.environ["MSSEG_JAX_TESTS"] = _session.name
os.environ["XDG_CACHE_HOME"] = os.environ["MSSEG_JAX_TESTS"]
COMPILED = f"{os.environ['MSSEG_JAX_TESTS']}/xla"  # cache of the programs that XLA compiles

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ.pop(library.SWITCH, None)  # as for users, who do not set it
# If a shell starts the tests in the background, they and their child processes ignore SIGINT, which
# some tests send. This restores Python's handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

# If this is true, the native convolution must be available, or tests fail. If not, users get the
# plain form, so only that is tested.
HAS_NATIVE = library.find_compiler() is not None and jax.default_backend() == "cpu"
