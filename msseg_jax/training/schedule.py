"""The length of a run, its learning rates, and the actions after each step."""

from dataclasses import dataclass

import optax

from msseg_jax.configuration.sections import TrainSettings
from msseg_jax.system.errors import InputError


@dataclass(frozen=True)
class Actions:
    """Actions after a step."""

    writes: bool  # write a line of the log
    stores: bool  # store a checkpoint
    validates: bool  # score the held-out patients
    stops: bool  # end early, because the run was asked to stop


@dataclass(frozen=True)
class Schedule:
    """The length of a run and its intervals, in steps."""

    per_epoch: int
    total: int
    log_every: int
    checkpoint_every: int
    validate_every: int | None  # None: no patients are held out

    @staticmethod
    def of(
        settings: TrainSettings, patches_per_patient: int, patients: int, held_out: int = 0
    ) -> "Schedule":
        """Return the schedule of a run. An epoch has `patches_per_patient` patches per patient.

        Args:
          patients: number of training patients.
          held_out: number of held-out patients.

        Raises:
          InputError: an epoch has fewer patches than a batch.
        """
        patches = patches_per_patient * patients
        per_epoch = patches // settings.batch_size
        if not per_epoch:
            raise InputError(
                f"config.train.batch_size is {settings.batch_size}, but an epoch has only "
                f"{patches} patches ({patches_per_patient} from each of {patients} patients). Use "
                f"at most {patches}."
            )
        total = settings.epochs * per_epoch
        if settings.max_steps:
            total = min(total, settings.max_steps)
        return Schedule(
            per_epoch, total, settings.log_every_steps, settings.checkpoint_every_steps,
            settings.validate_every_steps if held_out else None,
        )  # fmt: skip

    def validates_at(self, step: int) -> bool:
        """Return whether the state after this step is validated."""
        if self.validate_every is None:
            return False
        return step == self.total or step % self.validate_every == 0

    def after(self, step: int, asked_to_stop: bool) -> Actions:
        """Return the actions after a step.

        A run that is asked to stop stores its state and skips the validation, which may take long.
        The validation is done when the run continues.
        """
        is_last = step == self.total
        stops = asked_to_stop and not is_last
        validates = self.validates_at(step) and not stops
        stores = is_last or stops or step % self.checkpoint_every == 0
        # Write a line whenever something is stored: writing comes first, and ends the run if a
        # metric is not finite.
        writes = validates or stores or step % self.log_every == 0
        return Actions(writes, stores, validates, stops)


def learning_rate(settings: TrainSettings, schedule: Schedule) -> optax.Schedule:
    """Return the learning rate as a function of the step.

    It is constant within an epoch. The default is 0.004 x 0.9^epoch.
    """
    return optax.exponential_decay(
        settings.learning_rate,
        transition_steps=schedule.per_epoch,
        decay_rate=settings.learning_rate_decay,
        staircase=True,
    )
