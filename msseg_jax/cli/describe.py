"""`msseg describe`: print the layers of a network."""

import argparse

import jax

from msseg_jax.network.layer_table import layer_table
from msseg_jax.system.backend import start_backend


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0."""
    start_backend()
    config = flags.configuration
    share = max(1, config.train.batch_size // jax.device_count())
    print(layer_table(config.model, config.data.patch_size, share, config.train.compute_dtype))
    return 0
