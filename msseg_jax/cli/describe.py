"""`msseg describe`: print the layers of a network."""

import argparse

from msseg_jax.configuration import files
from msseg_jax.network.layer_table import layer_table


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0."""
    config = files.read(files.find(flags.config), flags.overrides)
    print(layer_table(config.model, config.data.patch_size))
    return 0
