"""The flags of `msseg train` and of launch.py."""

import argparse

from msseg_jax.cli.flags.values import whole_number
from msseg_jax.configuration import files
from msseg_jax.configuration.listing import list_fields
from msseg_jax.system.errors import InputError

EXAMPLES = (
    "--config=msseg2 --config.data.root=ROOT --workdir=runs/mine",
    "--config=demo",
)
DESCRIPTION = (
    "Train a network on labelled pairs, or continue a training that was stopped, then score the\n"
    "patients that were held out."
)
EPILOG = (
    "Any field of the configuration can be overridden after --config. A tuple is written\n"
    "--config.data.percentiles='(1,50,99)'. All fields with their defaults in the paper's\n"
    "configuration (msseg2), their meaning and their range:\n\n"
)
OVERRIDES = True
MODES = {
    "train": "train, or continue a run, then score the held-out patients",
    "cross_validate": "a run for each of config.data.folds, then the scores of all patients",
    "describe": "print the layers of the network",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_config(parser)
    modes = "; ".join(f"{name}: {text}" for name, text in MODES.items())
    parser.add_argument(
        "--mode", choices=MODES, default="train", help=f"{modes}. Default: %(default)s"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="folder of the run; default: runs/<name of the config>"
    )
    several = parser.add_argument_group("several processes that train together")
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address of process 0, the same for all"
    )
    several.add_argument(
        "--process_id", type=whole_number(0), metavar="N", help="number of this process, from 0"
    )
    several.add_argument(
        "--num_processes", type=whole_number(1), metavar="N", help="how many processes there are"
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare --config, and list all fields of the configuration."""
    parser.add_argument(
        "--config", required=True, metavar="CONFIG",
        help="configuration: a file with get_config(), or the name of a shipped one",
    )  # fmt: skip
    parser.epilog = EPILOG + list_fields()


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Read the configuration, so that a mistake in it is reported at once."""
    read_config(parser, flags)
    if flags.mode == "describe":
        flags.work = "describe"


def read_config(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Add the configuration and its file to the flags.

    If the file cannot be loaded, there is no such field, or a value cannot work, the process ends
    as it does after a wrong flag.
    """
    try:
        flags.config_file = files.find(flags.config)
        flags.configuration = files.read(flags.config_file, flags.overrides)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
