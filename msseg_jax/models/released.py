"""The released weights: a model file that comes with the program.

`predict` uses it where no --model is given; `--model=weights` and `--config.init=weights` name it.
`msseg export --show` prints its licence, attribution, training data and landmarks.
"""

from pathlib import Path

from msseg_jax.system.errors import InputError

WEIGHTS = "weights"  # their name wherever a model is expected

_FILE = Path(__file__).parent / "weights" / "open_ms.safetensors"


def released() -> Path:
    """Return the model file of the released weights.

    Raises:
      InputError: this copy of the program has none.
    """
    if not _FILE.is_file():
        raise InputError(
            f"{_FILE}: no such file; expected the released weights, which come with the program: "
            "install it again, or name a model of your own (a model file, or the folder of a run)"
        )
    return _FILE
