"""Compute what a training step minimises: the losses of the output and of the decoder maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp

from msseg_jax.configuration.sections import Configuration
from msseg_jax.configuration.targets import LESIONS01, LESIONS02, TargetSet
from msseg_jax.network.losses import batch_dice_loss, each_target_loss


@dataclass(frozen=True)
class Objective:
    """The loss of a run. The defaults are those of the paper."""

    targets: int  # number of output maps
    target_set: TargetSet = "raters"
    loss: str = "all_targets"  # or "each_target"
    decoder_weight: float = 0.0

    @classmethod
    def of(cls, config: Configuration) -> Self:
        """Return the objective of a configuration."""
        model, train = config.model, config.train
        return cls(model.targets, model.target_set, train.loss, train.decoder_weight)

    @property
    def needed_targets(self) -> int:
        """Number of targets that a batch must contain: the first ones."""
        return LESIONS02 + 1 if self.decoder_weight else self.targets

    def __call__(
        self,
        probabilities: jax.Array,
        decoder_maps: jax.Array | None,
        batch: Mapping[str, Any],
        axis_name: str | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the number to minimise, and the parts of it that are logged.

        Args:
          probabilities: (B, D, H, W, targets), the output maps.
          decoder_maps: (2B, D, H, W, decoders), of the first visits, then of the second ones. They
            are not used without a weight.
          batch: targets (B, D, H, W, `needed_targets`); known (B, `needed_targets`) bool, which is
            not used with "raters", because all their targets are known.
          axis_name: the `pmap` axis over which the batch is divided.
        """
        targets = batch["targets"]
        known = batch["known"] if self.target_set == "changes" else None
        compare = each_target_loss if self.loss == "each_target" else batch_dice_loss
        loss = compare(
            probabilities,
            targets[..., : self.targets],
            axis_name,
            None if known is None else known[:, : self.targets],
        )
        if not self.decoder_weight:
            return loss, {}
        assert decoder_maps is not None
        assert known is not None  # the configuration refuses a weight with "raters"
        decoder_loss = _decoder_loss(decoder_maps, targets, known, axis_name)
        return loss + self.decoder_weight * decoder_loss, {"decoder_loss": decoder_loss}


def _decoder_loss(
    maps: jax.Array, targets: jax.Array, known: jax.Array, axis_name: str | None
) -> jax.Array:
    """Return the mean over the decoders of the batch Dice loss with all lesions of each visit.

    A visit whose lesions are not known does not count.
    """
    # Like the maps: all first visits, then all second ones.
    lesions = jnp.concatenate([targets[..., k] for k in (LESIONS01, LESIONS02)])  # (2B, D, H, W)
    is_known = jnp.concatenate([known[:, k] for k in (LESIONS01, LESIONS02)])  # (2B,)
    decoders = maps.shape[-1]
    return each_target_loss(
        maps,
        jnp.broadcast_to(lesions[..., None], maps.shape),
        axis_name,
        jnp.broadcast_to(is_known[:, None], (len(is_known), decoders)),
    )
