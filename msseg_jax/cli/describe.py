"""`msseg describe`: print the layers of a network."""

import argparse

from msseg_jax.network.layer_table import layer_table
from msseg_jax.system.backend import start_backend


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0."""
    start_backend()
    config = flags.configuration
    print(layer_table(config.model, config.data.patch_size))
    return 0
