"""Data parallelism: the only file that says `pmap`, and what the devices share.

`pmap` is in maintenance upstream (since JAX 0.8 a wrapper over `jit(shard_map)`); whatever takes
its place one day changes this file alone.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from msseg_jax.errors import InputError

AXIS = "devices"  # the name under which batch norm, loss and gradients meet


def check_batch_size(batch_size: int, devices: int) -> None:
    """Raises InputError unless the global batch divides by the devices."""
    if batch_size % devices:
        below = batch_size - batch_size % devices
        raise InputError(
            f"config.train.batch_size is {batch_size}, which does not divide by the {devices} "
            f"devices; wanted a multiple of {devices}, such as {below or devices} or "
            f"{below + devices}"
        )


def split_batch(batch, devices: int):
    """(B, ...) arrays to (devices, B / devices, ...)."""
    return jax.tree.map(lambda a: a.reshape(devices, a.shape[0] // devices, *a.shape[1:]), batch)


def on_every_device(state, devices: list):
    """The state as `parallel_step` hands it back; placed otherwise, it is compiled for twice."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def parallel_step(step: Callable, devices: list) -> Callable:
    """Run `step(state, batch) -> (state, metrics)` on every device, each on its share of the batch.

    The state goes in and comes out whole (unreplicated). `step` must bring the devices together
    over AXIS, so that each arrives at the same new state.
    """
    mapped = jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None), devices=devices
    )
    return lambda state, batch: mapped(state, split_batch(batch, len(devices)))
