"""Phantom patients as the data of a run, if the configuration requests them."""

import json
from pathlib import Path

from msseg_jax.configuration.sections import Configuration
from msseg_jax.simulate.phantom import write_phantoms
from msseg_jax.system.atomic import whole_folder
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.words import count_of
from msseg_jax.training.processes import main_first

RECORD = "phantoms.json"  # marks a folder as made by a run, and lists its settings


def use_phantoms(config: Configuration, workdir: Path) -> Configuration:
    """Return the configuration with phantoms as its data, if it requests phantoms.

    The phantoms are made in `workdir/phantoms`, unless they exist already.

    Raises:
      InputError: `workdir/phantoms` contains something else.
    """
    if not config.data.phantom_patients:
        return config
    root = workdir / "phantoms"
    main_first("phantoms", lambda: _make_phantoms(config, root))
    return config.with_data(root=str(root))


def _make_phantoms(config: Configuration, root: Path) -> None:
    data = config.data
    requested = {
        "patients": data.phantom_patients,
        "seed": config.seed,
        "spacing_mm": data.phantom_spacing_mm,
    }
    record = root / RECORD
    if record.is_file() and read_json(record) == requested:
        return
    if root.exists() and not record.is_file():
        raise InputError(
            f"{root}: this folder was not made by this run, and phantoms would replace it. Move it "
            "away, or choose another --workdir."
        )
    print(f"making {count_of(data.phantom_patients, 'phantom patient')} in {root}")
    # Phantoms that are replaced belong to an earlier configuration that was never trained.
    with whole_folder(root, replace=True) as new:
        write_phantoms(new, data.phantom_patients, config.seed, spacing_mm=data.phantom_spacing_mm)
        (new / RECORD).write_text(json.dumps(requested) + "\n", encoding="utf-8")
