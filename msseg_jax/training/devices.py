"""Run a step on several devices: the only file that uses `pmap`.

`pmap` is in maintenance upstream (since JAX 0.8 it is a wrapper over `jit(shard_map)`). If it is
replaced, only this file changes.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from msseg_jax.network import native
from msseg_jax.system.errors import InputError

AXIS = "devices"  # pmap axis over which batch norm, loss and gradients are reduced

Tree = Any  # pytree of arrays

logger = logging.getLogger(__name__)


def check_batch_size(batch_size: int, devices: int) -> None:
    """Raise InputError unless the global batch size is a multiple of the number of devices."""
    if batch_size % devices:
        below = batch_size - batch_size % devices
        raise InputError(
            f"config.train.batch_size is {batch_size}, but a batch is split evenly over the "
            f"{devices} devices. Use a multiple of {devices}, such as {below or devices} or "
            f"{below + devices}."
        )


@functools.cache  # for the folds of a cross-validation, one warning suffices
def check_compute_dtype(dtype: str) -> None:
    """Warn if feature maps of this type gain little over float32 on this device."""
    if dtype == "bfloat16" and jax.default_backend() == "cpu" and not native.multiplies_bfloat16():
        logger.warning(
            "config.train.compute_dtype is bfloat16. That is hardly faster than float32 here, "
            "because this CPU has no instructions that multiply bfloat16 numbers (AVX512-BF16), or "
            "the native convolution was not compiled for them. Use float32, which is more accurate."
        )


def on_every_device(tree: Tree, devices: list[jax.Device]) -> Tree:
    """Replicate the arrays on all devices of this process, as `parallel_step` needs them."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def spread_over_devices(batch: Tree, devices: list[jax.Device]) -> Tree:
    """Split this process's (B, ...) arrays into (devices, B / devices, ...), a row per device."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    rows = jax.tree.map(
        lambda a: a.reshape(len(devices), a.shape[0] // len(devices), *a.shape[1:]), batch
    )
    return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(AXIS)))


def parallel_step(
    step: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]], devices: list[jax.Device]
) -> Callable[..., tuple[Tree, Tree, jax.Array]]:
    """Return a function that runs `step(state, batch, shared)` on every device of every process.

    The function takes

      state: replicated by `on_every_device`. Its memory is donated to the new state.
      batch: this process's share, NumPy arrays of shape (B, ...).
      shared: data that every device needs in full, replicated by `on_every_device`.
      flag: a boolean of this process.

    It returns the new state, the metrics, and whether the flag is set in any process. All three
    are the same on every device. For this, `step` must reduce its gradients and statistics over
    AXIS. The arguments are copied to the devices before the step starts; during the step, nothing
    is copied between host and devices.
    """

    def on_device(state: Tree, batch: Tree, shared: Tree, flag: jax.Array) -> tuple[Tree, ...]:
        state, metrics = step(state, batch, shared)
        return state, metrics, jax.lax.pmax(flag[0], AXIS)

    mapped = jax.pmap(
        on_device, axis_name=AXIS, in_axes=(None, 0, None, 0), out_axes=(None, None, None),
        devices=jax.devices() if jax.process_count() > 1 else devices, donate_argnums=(0,),
    )  # fmt: skip

    def run(
        state: Tree, batch: Tree, shared: Tree = (), flag: bool = False
    ) -> tuple[Tree, Tree, jax.Array]:
        flags = np.full(len(devices), flag, np.int32)
        batch, flags = spread_over_devices((batch, flags), devices)
        with jax.transfer_guard("disallow"):
            return mapped(state, batch, shared, flags)

    return run
