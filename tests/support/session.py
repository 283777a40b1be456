"""Prepare the process of the tests; import this before anything asks JAX for a device.

What one test has compiled serves the next, in whichever process of the session that is. A folder of
the session's own makes each session a cold start: the native convolution is compiled once, as on a
new machine.
"""

import os
import signal
import tempfile
from pathlib import Path

import jax

from msseg_jax.network import native

ROOT = Path(__file__).parents[2]  # of the repository
DATA = ROOT / "tests" / "support" / "files"
SHARED = ROOT.parent / "shared"  # real data and the like; tests that need it skip without it

if "MSSEG_JAX_TESTS" not in os.environ:  # else another process of the session has made it
    _session = tempfile.TemporaryDirectory(prefix="msseg_jax_tests_")
    os.environ["MSSEG_JAX_TESTS"] = _session.name
os.environ["XDG_CACHE_HOME"] = os.environ["MSSEG_JAX_TESTS"]
COMPILED = f"{os.environ['MSSEG_JAX_TESTS']}/xla"  # the cache of XLA's programs

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ.pop(native.SWITCH, None)  # tested as users have it
# A shell that starts the tests in the background makes them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where this holds, a native convolution that is not available is a fault. Elsewhere users get the
# plain form, so only that is tested.
HAS_NATIVE = native.find_compiler() is not None and jax.default_backend() == "cpu"
