"""Find the released weights, a model file that comes with the program.

`msseg predict` uses it by default. `--model=weights` and `--config.init=weights` refer to it.
`msseg export --show=weights` prints its licence, attribution, training data and landmarks.
"""

from pathlib import Path

from msseg_jax.system.errors import InputError

WEIGHTS = "weights"  # refers to the released weights where a model is expected

_FILE = Path(__file__).parent / "weights" / "flair_changes.safetensors"


def released() -> Path:
    """Return the path of the model file with the released weights.

    Raises:
      InputError: the file is missing.
    """
    if not _FILE.is_file():
        raise InputError(
            f"{_FILE}: no such file; expected the released weights, which come with the program. "
            "Install it again, or choose another model (a model file, or the folder of a run)."
        )
    return _FILE
