"""How many steps a run has, and their learning rates."""

from dataclasses import dataclass

import optax
from ml_collections import ConfigDict

from msseg_jax.models.configuration import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Lengths in steps, derived from the configuration and the number of patients."""

    steps_per_epoch: int
    total_steps: int


def make_schedule(config: ConfigDict, training_patients: int) -> Schedule:
    """An epoch is `patches_per_patient` patches of each training patient.

    Raises:
      ConfigError: an epoch is shorter than a batch.
    """
    patches = config.data.patches_per_patient * training_patients
    steps_per_epoch = patches // config.train.batch_size
    if not steps_per_epoch:
        raise ConfigError(
            f"config.train.batch_size is {config.train.batch_size}; wanted at most {patches}, the "
            f"patches of an epoch ({config.data.patches_per_patient} from each of "
            f"{training_patients} patients)"
        )
    total_steps = config.train.epochs * steps_per_epoch
    if config.train.max_steps:
        total_steps = min(total_steps, config.train.max_steps)
    return Schedule(steps_per_epoch, total_steps)


def learning_rate(config: ConfigDict, schedule: Schedule) -> optax.Schedule:
    """0.004 x 0.9^epoch in the paper: constant within an epoch."""
    return optax.exponential_decay(
        config.train.learning_rate,
        transition_steps=schedule.steps_per_epoch,
        decay_rate=config.train.learning_rate_decay,
        staircase=True,
    )
