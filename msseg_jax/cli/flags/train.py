"""The flags of `msseg train` and of launch.py."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags.values import whole_number
from msseg_jax.configuration import files
from msseg_jax.configuration.listing import list_fields
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_utf8

EXAMPLES = (
    "--config=msseg2 --config.data.root=pairs --workdir=runs/mine",
    "--config=demo",
)
DESCRIPTION = (
    "Train a network on labelled pairs, or resume a training that was stopped. Then score the\n"
    "held-out patients."
)
EPILOG = (
    "Any field of the configuration can be changed with a flag, for example --config.seed=1.\n"
    "Write a tuple as --config.data.percentiles='(1,50,99)'. These are all fields, with their\n"
    "values in the paper's configuration (msseg2), their meaning and their range:\n\n"
)
OVERRIDES = True
MODES = {
    "train": "trains one network, then scores the held-out patients",
    "cross_validate": "trains one network for each of the config.data.folds folds, then scores all "
    "patients",
    "describe": "prints the layers of the network",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_config(parser)
    modes = " ".join(f"`{name}` {text}." for name, text in MODES.items())
    parser.add_argument(
        "--mode", choices=MODES, default="train",
        help=f"What to do. {modes} Default: %(default)s.",
    )  # fmt: skip
    parser.add_argument(
        "--workdir", metavar="DIR",
        help="Folder of the run. If it holds an unfinished run, that run is resumed. Default: "
        "runs/<name>, with the name of the configuration file.",
    )  # fmt: skip
    several = parser.add_argument_group(
        "training with several processes (give all three flags to each process)"
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT",
        help="Address of process 0, the same for all processes. Default: this process trains by "
        "itself.",
    )  # fmt: skip
    several.add_argument(
        "--process_id", type=whole_number(0), metavar="N",
        help="Number of this process, from 0 to --num_processes minus 1. Default: this process "
        "trains by itself.",
    )  # fmt: skip
    several.add_argument(
        "--num_processes", type=whole_number(1), metavar="N",
        help="Number of processes that train together. Default: this process trains by itself.",
    )  # fmt: skip


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare --config, and list all fields of the configuration."""
    parser.add_argument(
        "--config", required=True, metavar="CONFIG",
        help="Configuration: a Python file that defines get_config(), or the name of a "
        f"configuration that comes with msseg_jax ({', '.join(files.names())}). Required.",
    )  # fmt: skip
    parser.epilog = EPILOG + list_fields()


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Read the configuration, so that errors in it are reported at once."""
    read_config(parser, flags)
    try:
        check_utf8(f"--workdir={Path(flags.workdir or flags.config_file.stem).resolve()}")
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if flags.mode == "describe":
        flags.work = "describe"


def read_config(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Add the configuration and its file to the flags.

    The process exits with 2, as after a wrong flag, if the file cannot be loaded, a field does not
    exist, or a value is not allowed.
    """
    try:
        flags.config_file = files.find(flags.config)
        flags.configuration = files.read(flags.config_file, flags.overrides)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
