"""Phantom patients as the data of a run, where the configuration asks for them."""

import json
from pathlib import Path

from msseg_jax.configuration.sections import Configuration
from msseg_jax.simulate.phantom import write_phantoms
from msseg_jax.system.atomic import whole_folder
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.training.processes import main_first

RECORD = "phantoms.json"  # says that the folder was made by a run, and what is in it


def use_phantoms(config: Configuration, workdir: Path) -> Configuration:
    """Return the configuration with phantoms as its data, if it asks for them.

    They are made in `workdir/phantoms`, unless they are there.

    Raises:
      InputError: other files are in their place.
    """
    if not config.data.phantom_patients:
        return config
    root = workdir / "phantoms"
    main_first("phantoms", lambda: _make_phantoms(config, root))
    return config.with_data(root=str(root))


def _make_phantoms(config: Configuration, root: Path) -> None:
    data = config.data
    asked_for = {
        "patients": data.phantom_patients,
        "seed": config.seed,
        "spacing_mm": data.phantom_spacing_mm,
    }
    record = root / RECORD
    if record.is_file() and read_json(record) == asked_for:
        return
    if root.exists() and not record.is_file():
        raise InputError(
            f"{root}: was not made by this run, and its phantoms would take its place; move it "
            "away, or choose another --workdir"
        )
    print(f"making {data.phantom_patients} phantom patients in {root}")
    # What is replaced is of a configuration that was not trained in the end.
    with whole_folder(root, replace=True) as new:
        write_phantoms(new, data.phantom_patients, config.seed, spacing_mm=data.phantom_spacing_mm)
        (new / RECORD).write_text(json.dumps(asked_for) + "\n")
