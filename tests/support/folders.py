"""Predict a folder of patients, and look at what was written."""

import json
from pathlib import Path

from msseg_jax.cli.main import main


def predict(flags):
    return main(["predict", *map(str, flags)])


def record_of(out, patient="patient_0"):
    return json.loads((out / f"{patient}.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of the patients."""
    return {path.name: path.read_bytes() for path in folder.glob("patient_*")}
