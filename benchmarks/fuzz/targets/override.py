"""Overrides of the configuration (`--config.a.b=value`), and configuration files.

A configuration file is Python code, so a damaged one may do anything that the user may do. The
damages here are small, and the file imports nothing that could do harm.
"""

import json
import random
from pathlib import Path
from typing import Any

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_bytes, mutate_place
from msseg_jax.cli.command_line import parse
from msseg_jax.configuration.files import find, read
from msseg_jax.configuration.sections import Configuration
from msseg_jax.system.errors import InputError
from msseg_jax.system.shown import shown

NAME = "override"

# Valid flags, each with the value that it must give.
VALID: tuple[tuple[str, Any], ...] = (
    ("--config.seed=7", 7),
    ("--config.model.widths=(4,5,6)", (4, 5, 6)),
    ("--config.model.dropout_rate=0.25", 0.25),
    ("--config.data.root=/some/place with spaces", "/some/place with spaces"),
    ("--config.data.cache_dir=None", None),
    ("--config.data.phantom_spacing_mm=1.5", 1.5),
    ("--config.data.percentiles=(0.0,50.0,100.0)", (0.0, 50.0, 100.0)),
    ("--config.data.device_resident=true", True),
    ("--noconfig.augmentation.enabled", False),
    ("--config.augmentation.flip_probability=(0.0,0.5,1.0)", (0.0, 0.5, 1.0)),
    ("--config.train.compute_dtype=bfloat16", "bfloat16"),
    ("--config.train.batch_size=8", 8),
    ("--config.train.learning_rate=1e-3", 1e-3),
    ("--config.predict.overlap=0", 0),
    ("--config.predict.min_lesion_mm3=12", 12.0),
    ("--config.init=weights", "weights"),
)
_ODD = (
    "", "0", "-1", "1", "1e400", "-inf", "nan", "None", "True", "false", "yes", "9" * 400,
    "9" * 5000, "1" * 200_000, "0x10", "1_000", "1,2", "(1,2", "(1,2,)", "()", "((1,),)",
    "(" * 300 + ")" * 300, "[" * 5000, "{}", "__import__('sys').exit(3)", "9**9**9",
    "(0,)*10**10", "'x'*10", "\u00e9", "\ud800", "a\0b", "a\nb", "=", "==", " 5 ", "5.0", "5.5",
    "-0", "1e3", "'5'", '"5"', "%s", "{0}", "x" * 5000, "(1e400,2)", "(nan,nan,nan)",
)  # fmt: skip
_NAMES = (
    "--config", "--config.", "--config..", "--config.seed.x", "--config.data", "--config.nothing",
    "--config.model.widths.0", "--config.model.widths[0]", "--noconfig.seed", "--noconfig.data",
    "-config.seed", "---config.seed", "--config.seed ", "--CONFIG.seed", "--config.model.width",
    "--config.data.data.root", "--config.__class__", "--config.items", "--config.lock",
    "--flagfile", "--undefok", "--help", "--config." + "a." * 2000 + "b", "--config.\u00e9",
)  # fmt: skip

_FILE = """from msseg_jax.configuration.files import default


def get_config():
    config = default()
    config.seed = 11
    config.model.widths = (3, 2)
    config.data.patch_size = 8
    config.predict.overlap = 2
    config.train.batch_size = 4
    return config
"""
_LINES = (
    "config.seed = -1", "config.seed = 'x'", "config.seed = None", "config.seed = 10**5000",
    "config.nothing = 1", "config.model.widths = (3, 2, 'x')", "config.model.widths = [3, 2]",
    "config.data = 3", "config.model.widths = ()", "config.data.percentiles = (5, 5)",
    "config.train.learning_rate = float('nan')", "config = None", "config = 5", "raise KeyError(3)",
    "raise SystemExit", "raise RecursionError", "del config.seed", "config.unlock()",
    "config.model.x = config", "return config.model", "return {}", "1 / 0", "x = [", "\tpass",
    "config.data.root = 'y' * 10**6", "config.data.root = '\\udc80'", "config.seed = config",
    "get_config()", "config.model.widths = (3,) * 10**6", "config.model.node_convolutions = 10**9",
)  # fmt: skip


def make(folder: Path) -> None:
    """Write a configuration file."""
    (folder / "own.py").write_text(_FILE, encoding="utf-8")


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Write the flags, and in a third of the cases a damaged configuration file."""
    with_file = rng.random() < 0.35
    if with_file:
        _write_file(rng, (seeds / "own.py").read_text(encoding="utf-8"), case / "own.py")
    count = rng.choice((0, 0, 1)) if with_file else rng.choice((1, 1, 2, 3))
    flags = [_flag(rng) for _ in range(count)]
    record = {"file": with_file, "flags": flags}
    (case / "flags.json").write_text(json.dumps(record), encoding="utf-8")


def _flag(rng: random.Random) -> str:
    flag = rng.choice(VALID)[0]
    name, _, value = flag.partition("=")
    match rng.randrange(8):
        case 0 | 1:
            return flag
        case 2 | 3 | 4:
            return f"{name}={rng.choice(_ODD)}"
        case 5:
            return f"{rng.choice(_NAMES)}{rng.choice(('=', '=', ''))}{rng.choice(_ODD)}"
        case 6:
            return f"{name}={mutate_bytes(rng, value.encode()).decode('latin-1')}"
        case _:
            return mutate_bytes(rng, flag.encode()).decode("latin-1")


def _write_file(rng: random.Random, text: str, path: Path) -> None:
    lines = text.splitlines()
    match rng.randrange(8):
        case 0:
            pass
        case 1:
            path.write_bytes(mutate_bytes(rng, text.encode()))
            return
        case 2:
            depth = rng.choice((50, 150, 5000, 100_000))
            lines.insert(5, "    x = " + "(" * depth + ")" * depth)
        case 3:
            lines.insert(rng.randrange(len(lines)), "# coding: " + rng.choice(("x", "utf-16", "")))
        case _:
            lines.insert(rng.randrange(5, 11), "    " + rng.choice(_LINES))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if rng.random() < 0.03:
        mutate_place(rng, path)


def use(case: Path) -> None:
    """Parse the flags as `msseg train` does, read the configuration, and check what was set."""
    record = json.loads((case / "flags.json").read_text(encoding="utf-8"))
    name = str(case / "own.py") if record["file"] else "msseg2"
    arguments = [f"--config={name}", "--workdir=run", *record["flags"]]
    try:
        flags = parse("train", arguments, "msseg train")
    except SystemExit as error:
        if error.code in (0, 2):  # the help, or an error in one line
            raise InputError("the parser has ended the program") from None
        raise WrongReading(f"exit status {error.code}") from None
    config = read(find(flags.config), flags.overrides)
    changed = _flat(config.model_dump())
    names = [_name_of(flag) for flag in record["flags"]]
    for flag, value in VALID:
        place = _name_of(flag)
        if names.count(place) == 1 and flag in record["flags"] and changed[place] != value:
            raise WrongReading(f"{flag} gives {shown(changed[place])}")
    base = Configuration() if record["file"] else read(find("msseg2"))
    if not record["file"]:
        for place, value in _flat(base.model_dump()).items():
            if place not in names and changed[place] != value:
                raise WrongReading(f"{place} has changed to {shown(changed[place])}")
    elif _is_intact(case / "own.py") and "seed" not in names and config.seed != 11:
        raise WrongReading(f"the file sets config.seed to 11, but it is {config.seed}")


def _is_intact(file: Path) -> bool:
    return file.read_text(encoding="utf-8") == _FILE


def _name_of(flag: str) -> str:
    name = flag.partition("=")[0].strip().lstrip("-")
    return name.removeprefix("no").removeprefix("config.")


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat
