"""The training state, and the training step as a pure function of state and batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from msseg_jax.data.packing import unpack_batch
from msseg_jax.network.model import DECODER_MAPS, SiameseMPUNet, initial_variables
from msseg_jax.training.devices import AXIS
from msseg_jax.training.objective import Objective
from msseg_jax.training.resident_volumes import cut

Batch = dict[str, Any]  # arrays by name
Metrics = dict[str, jax.Array]  # scalars by name


class TrainState(train_state.TrainState):
    """Parameters, optimiser state, step, and the running statistics of batch norm."""

    batch_stats: dict[str, Any]

    @property
    def model_variables(self) -> dict[str, Any]:
        """The variables of the network: parameters and running statistics."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: SiameseMPUNet,
    rate: optax.Schedule,
    seed: int = 0,
    variables: dict[str, Any] | None = None,
) -> TrainState:
    """Return the initial state.

    Args:
      variables: parameters and running statistics, or None for random ones that depend on the seed.
    """
    variables = variables or initial_variables(model, seed)
    state = TrainState.create(apply_fn=model.apply, tx=optax.adam(rate), **variables)
    # A Python 0 would make the step compile twice.
    return state.replace(step=jnp.zeros((), jnp.int32))


def train_step(
    state: TrainState, batch: Batch, *, seed: int, objective: Objective | None = None
) -> tuple[TrainState, Metrics]:
    """Update the state once, with one device's share of the batch.

    Args:
      batch: time01, time02 (B, S, S, S, 1); targets (B, S, S, S, T); patch_ids (B,); with the
        target set "changes" also known (B, T).
      seed: seed of the run. Together with the patch ids, it gives each patch its own dropout key.
      objective: what to minimise. None: the loss of the paper.

    Returns:
      The new state and {'loss', 'gradient_norm'}, the same on every device. The loss is the sum
      that is minimised; with a decoder loss, 'decoder_loss' is its part without the weight.
    """
    objective = objective or Objective(batch["targets"].shape[-1])
    kept = ["batch_stats"] + ["intermediates"] * (objective.decoder_weight > 0)
    # The key is made here, from a number. A key from outside would be copied from the device while
    # the step is compiled. It is folded, so that it differs from the key of the initialiser.
    dropout_key = jax.random.fold_in(jax.random.key(seed), 1)

    def loss_of(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
        probabilities, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            batch["time01"],
            batch["time02"],
            train=True,
            patch_ids=batch["patch_ids"],
            rngs={"dropout": dropout_key},
            mutable=kept,
        )
        # A tuple with one entry for each call of the network.
        (decoder_maps,) = updates.get("intermediates", {}).get(DECODER_MAPS, (None,))
        loss, parts = objective(probabilities, decoder_maps, batch, AXIS)
        return loss, (updates["batch_stats"], parts)

    (loss, (batch_stats, parts)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
        state.params
    )
    # The loss is that of the global batch. Every device differentiates its sums over all devices,
    # and therefore has `devices` times its own part of the gradient. The mean is the full gradient.
    gradients = jax.lax.pmean(gradients, AXIS)
    state = state.apply_gradients(grads=gradients, batch_stats=batch_stats)
    return state, {"loss": loss, **parts, "gradient_norm": optax.tree.norm(gradients)}


def loaded_step(
    state: TrainState,
    batch: Batch,
    volumes: dict[str, jax.Array],
    *,
    seed: int,
    patch_size: int,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """Run `train_step` on a batch as the loader provides it.

    Args:
      batch: a batch of `PatchBatches` (packed patches), or of `PlaceBatches` (the positions at
        which patches are cut from `volumes`).
      volumes: result of `resident_volumes.read_volumes`; empty if patches are cut on the host.
    """
    if volumes:
        batch = cut(volumes, batch, patch_size)
    unpacked = unpack_batch(batch, objective.needed_targets)
    return train_step(state, unpacked, seed=seed, objective=objective)
