"""`msseg describe`: print the layers of a network."""

import argparse

from msseg_jax.network.layer_table import layer_table


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0."""
    config = flags.configuration
    print(layer_table(config.model, config.data.patch_size))
    return 0
