"""How long a run is, its learning rates, and what is done after which step."""

from dataclasses import dataclass

import optax

from msseg_jax.configuration.sections import TrainSettings
from msseg_jax.system.errors import InputError


@dataclass(frozen=True)
class Actions:
    """What is done after a step."""

    writes: bool  # a line of the log
    stores: bool  # a checkpoint
    validates: bool
    stops: bool  # because the run was asked to


@dataclass(frozen=True)
class Schedule:
    """The lengths of a run, in steps."""

    per_epoch: int
    total: int
    log_every: int
    checkpoint_every: int
    validate_every: int | None  # None: no patients are held out

    @staticmethod
    def of(
        settings: TrainSettings, patches_per_patient: int, patients: int, held_out: int = 0
    ) -> "Schedule":
        """Return the schedule: an epoch is `patches_per_patient` patches of each patient.

        Args:
          patients: that are trained on.
          held_out: patients that are not.

        Raises:
          InputError: an epoch is shorter than a batch.
        """
        patches = patches_per_patient * patients
        per_epoch = patches // settings.batch_size
        if not per_epoch:
            raise InputError(
                f"config.train.batch_size is {settings.batch_size}; expected at most {patches}, "
                f"the patches of an epoch ({patches_per_patient} from each of {patients} patients)"
            )
        total = settings.epochs * per_epoch
        if settings.max_steps:
            total = min(total, settings.max_steps)
        return Schedule(
            per_epoch, total, settings.log_every_steps, settings.checkpoint_every_steps,
            settings.validate_every_steps if held_out else None,
        )  # fmt: skip

    def validates_at(self, step: int) -> bool:
        """Return whether the state of this step is validated."""
        if self.validate_every is None:
            return False
        return step == self.total or step % self.validate_every == 0

    def after(self, step: int, asked_to_stop: bool) -> Actions:
        """Return what is done after a step.

        A run that is asked to stop stores its state, and leaves the validation, which may take
        long, to the run that continues.
        """
        is_last = step == self.total
        stops = asked_to_stop and not is_last
        validates = self.validates_at(step) and not stops
        stores = is_last or stops or step % self.checkpoint_every == 0
        # A line is always written before something is stored, because writing ends a run whose
        # numbers are not finite.
        writes = validates or stores or step % self.log_every == 0
        return Actions(writes, stores, validates, stops)


def learning_rate(settings: TrainSettings, schedule: Schedule) -> optax.Schedule:
    """Return the rate as a function of the step: constant within an epoch (0.004 x 0.9^epoch)."""
    return optax.exponential_decay(
        settings.learning_rate,
        transition_steps=schedule.per_epoch,
        decay_rate=settings.learning_rate_decay,
        staircase=True,
    )
