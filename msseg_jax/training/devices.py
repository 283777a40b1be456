"""Run a step on several devices: the only file that uses `pmap`.

`pmap` is in maintenance upstream (since JAX 0.8 it is a wrapper over `jit(shard_map)`). If it is
replaced, only this file changes.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from msseg_jax.system.errors import InputError

AXIS = "devices"  # the name under which batch norm, loss and gradients meet


# -------------------------------------------------------------------------------------- devices


def check_batch_size(batch_size: int, devices: int) -> None:
    """Raises InputError unless the global batch divides by the devices."""
    if batch_size % devices:
        below = batch_size - batch_size % devices
        raise InputError(
            f"config.train.batch_size is {batch_size}, which does not divide by the {devices} "
            f"devices; wanted a multiple of {devices}, such as {below or devices} or "
            f"{below + devices}"
        )


def on_every_device(tree, devices: list):
    """The arrays, whole, on each of this process's devices: as `parallel_step` takes them."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def spread_over_devices(batch, devices: list):
    """This process's (B, ...) arrays to (devices, B / devices, ...), each row on its device."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    rows = jax.tree.map(
        lambda a: a.reshape(len(devices), a.shape[0] // len(devices), *a.shape[1:]), batch
    )
    return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(AXIS)))


def parallel_step(step: Callable, devices: list) -> Callable:
    """Run `step(state, batch, shared) -> (state, metrics)` on every device of every process.

    The function returned takes

      state: whole, from `on_every_device`. Its memory is taken for the new state.
      batch: this process's share, (B, ...) NumPy arrays.
      shared: what every device needs whole, from `on_every_device`.
      flag: a truth value of this process;

    and returns the new state, the metrics, and whether any process has its flag set, all of it the
    same everywhere. `step` must bring the devices together over AXIS, so that each arrives at the
    same new state. What it takes is brought to the devices before it starts: nothing is copied
    from or to them inside.
    """

    def on_device(state, batch, shared, flag):
        state, metrics = step(state, batch, shared)
        return state, metrics, jax.lax.pmax(flag[0], AXIS)

    mapped = jax.pmap(
        on_device, axis_name=AXIS, in_axes=(None, 0, None, 0), out_axes=(None, None, None),
        devices=jax.devices() if jax.process_count() > 1 else devices, donate_argnums=(0,),
    )  # fmt: skip

    def run(state, batch, shared=(), flag=False):
        flags = np.full(len(devices), flag, np.int32)
        batch, flags = spread_over_devices((batch, flags), devices)
        with jax.transfer_guard("disallow"):
            return mapped(state, batch, shared, flags)

    return run
