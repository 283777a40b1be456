"""The training state, and one step: a pure function of state and batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from msseg_jax.data.packing import unpack_batch
from msseg_jax.network.losses import batch_dice_loss
from msseg_jax.network.model import SiameseMPUNet, initial_variables
from msseg_jax.training.devices import AXIS
from msseg_jax.training.resident_volumes import cut

Batch = dict[str, Any]  # of arrays
Metrics = dict[str, jax.Array]  # of scalars


class TrainState(train_state.TrainState):
    """Parameters, optimiser state and step, with batch norm's running statistics."""

    batch_stats: dict[str, Any]

    @property
    def model_variables(self) -> dict[str, Any]:
        """Return the variables with which the network is applied."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: SiameseMPUNet,
    rate: optax.Schedule,
    seed: int = 0,
    variables: dict[str, Any] | None = None,
) -> TrainState:
    """Return the initial state: a function of the seed, or with the variables that are given."""
    variables = variables or initial_variables(model, seed)
    state = TrainState.create(apply_fn=model.apply, tx=optax.adam(rate), **variables)
    return state.replace(step=jnp.zeros((), jnp.int32))  # a Python 0 would compile the step twice


def train_step(state: TrainState, batch: Batch, *, seed: int) -> tuple[TrainState, Metrics]:
    """Return the state after one update, on one device's share of the batch.

    Args:
      batch: time01, time02 (B, S, S, S, 1); targets (B, S, S, S, T); patch_ids (B,).
      seed: of the run, for dropout; with the patch ids it gives each patch its own key.

    Returns:
      The new state and {'loss', 'gradient_norm'}, the same on every device.
    """
    # Made here from a number: a key from outside would be copied from the device when the step is
    # compiled. The initialiser uses the key of the seed itself.
    dropout_key = jax.random.fold_in(jax.random.key(seed), 1)

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        probabilities, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            batch["time01"],
            batch["time02"],
            train=True,
            patch_ids=batch["patch_ids"],
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        loss = batch_dice_loss(probabilities, batch["targets"], axis_name=AXIS)
        return loss, updates["batch_stats"]

    (loss, batch_stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    # The loss is already that of the global batch, and its sums are differentiated on every
    # device: each holds `devices` times its own part of the gradient, so the mean is their sum.
    gradients = jax.lax.pmean(gradients, AXIS)
    state = state.apply_gradients(grads=gradients, batch_stats=batch_stats)
    return state, {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}


def loaded_step(
    state: TrainState,
    batch: Batch,
    volumes: dict[str, jax.Array],
    *,
    seed: int,
    targets: int,
    patch_size: int,
) -> tuple[TrainState, Metrics]:
    """Return what `train_step` returns, for a batch as it is loaded.

    Args:
      batch: packed patches of `PatchBatches`; or, where there are `volumes`, of `PlaceBatches`.
      volumes: from `resident_volumes.read_volumes`; empty where patches are cut on the host.
    """
    if volumes:
        batch = cut(volumes, batch, patch_size)
    return train_step(state, unpack_batch(batch, targets), seed=seed)
