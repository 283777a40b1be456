"""The flags of `msseg describe`."""

import argparse

from msseg_jax.cli.flags.train import add_config, read_config

EXAMPLES = ("--config=msseg2", "--config=demo --config.model.targets=1")
DESCRIPTION = (
    "Print the layers of the network of a configuration. The network is not run. On an NVIDIA GPU, "
    "the table shows how each convolution is computed."
)
OVERRIDES = True


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_config(parser)


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Read the configuration, so that errors in it are reported at once."""
    read_config(parser, flags)
