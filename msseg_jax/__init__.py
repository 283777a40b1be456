"""Find new multiple-sclerosis lesions between two FLAIR visits with a Siamese U-Net++ in JAX."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msseg_jax.api.findings import Findings, find_new_lesions, load_model
    from msseg_jax.api.scans import PreparedScans, prepare_scans
    from msseg_jax.api.scores import score_mask
    from msseg_jax.system.errors import InputError

__version__ = "0.1.0"
__all__ = [
    "Findings",
    "InputError",
    "PreparedScans",
    "find_new_lesions",
    "load_model",
    "prepare_scans",
    "score_mask",
]

# pip refuses other versions of Python, but a checkout also runs without pip. Therefore the version
# is checked here, too, in syntax that old versions can parse.
if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit("msseg_jax needs Python 3.11, 3.12 or 3.13; this is Python " + sys.version.split()[0])

# The module of each public name. It is imported on first use, because importing JAX takes seconds
# and `msseg --help` does not need it.
_MODULES = {
    "Findings": "api.findings",
    "InputError": "system.errors",
    "PreparedScans": "api.scans",
    "find_new_lesions": "api.findings",
    "load_model": "api.findings",
    "prepare_scans": "api.scans",
    "score_mask": "api.scores",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'msseg_jax' has no attribute {name!r}")
    return getattr(import_module(f"msseg_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
