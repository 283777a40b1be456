"""The released weights: a model file that comes with the program.

open_ms.safetensors is what `predict` takes where no --model is given, and what `--model=weights`
and `--config.init=weights` stand for. What it says of itself (licence, attribution, training data,
landmarks): python -m msseg_jax.export --show
"""

from pathlib import Path

from msseg_jax.system.errors import InputError

WEIGHTS = "weights"  # what they are called where a model is asked for

_FILE = Path(__file__).parent / "weights" / "open_ms.safetensors"


def released() -> Path:
    """The model file of the released weights.

    Raises:
      InputError: this copy of the program has none.
    """
    if not _FILE.is_file():
        raise InputError(
            f"{_FILE}: no such file; wanted the released weights, which come with the program: "
            "get the program anew, or name a model of your own (a model file, or the folder of a "
            "run of launch.py)"
        )
    return _FILE
