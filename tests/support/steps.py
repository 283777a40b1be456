"""Training steps on random patches."""

import jax
import numpy as np

from msseg_jax.training.devices import AXIS, on_every_device, parallel_step
from msseg_jax.training.step import create_state, train_step
from tests.support.runs import build_model

RATE = 0.01


def random_batch(seed=0, patches=4):
    """Return a batch in which the targets are a threshold of the second visit."""
    generator = np.random.default_rng(seed)
    visits = generator.normal(size=(2, patches, 8, 8, 8, 1)).astype(np.float32)
    targets = (visits[1] > 1).astype(np.uint8).repeat(2, axis=-1)
    ids = np.arange(patches, dtype=np.int32)
    return {"time01": visits[0], "time02": visits[1], "targets": targets, "patch_ids": ids}


def on_patches(state, batch, shared):
    """Run `train_step` on patches that are not packed."""
    return train_step(state, batch, seed=7)


def run_steps(config, devices, steps, compute_dtype="float32"):
    """Return the state and the metrics after some steps on devices, or on so many of them."""
    devices = jax.devices()[:devices] if isinstance(devices, int) else devices
    state = create_state(build_model(config, AXIS, compute_dtype), lambda step: RATE)
    state = on_every_device(state, devices)
    step = parallel_step(on_patches, devices)
    history = []
    for k in range(steps):
        state, metrics, _ = step(state, random_batch(k))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history
