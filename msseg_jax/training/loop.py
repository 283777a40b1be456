"""The training loop: restore, step, validate, store and stop."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.loader import load_batches
from msseg_jax.data.training_set import TrainingSet
from msseg_jax.models.checkpoints import Progress
from msseg_jax.models.model_file import Beginning, TrainedNetwork
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import SiameseMPUNet
from msseg_jax.system.interruption import Interruption, Stopped
from msseg_jax.training import processes
from msseg_jax.training.batches import training_batches
from msseg_jax.training.devices import AXIS, on_every_device, parallel_step
from msseg_jax.training.gpu_forms import choose_forms
from msseg_jax.training.log import TrainingLog
from msseg_jax.training.objective import Objective
from msseg_jax.training.schedule import Schedule, learning_rate
from msseg_jax.training.step import TrainState, create_state, loaded_step
from msseg_jax.training.store import Store
from msseg_jax.training.tensorboard import EventFile
from msseg_jax.training.validation import Validation
from msseg_jax.training.warm_start import begin_with, count_common_maps


def train(
    config: Configuration, run: RunFolder, data: TrainingSet, initial: TrainedNetwork | None
) -> None:
    """Train the run in a folder. Continue from its last checkpoint if it has one.

    Args:
      run: folder that `create_or_continue` has prepared.
      data: result of `prepare_data`.
      initial: result of `initial_network`.

    Raises:
      InputError: before the training, if a field, file or folder is invalid. During the training,
        if the loss or the gradient is not finite, or if a file cannot be written.
      Stopped: the run was asked to stop, and its state is stored.
    """
    devices = jax.local_devices()
    schedule = Schedule.of(
        config.train, config.data.patches_per_patient, len(data.training), len(data.validation)
    )
    rate = learning_rate(config.train, schedule)
    model = SiameseMPUNet(config.model, AXIS, config.train.compute_dtype)
    variables = begin_with(config, initial) if initial else None
    state = create_state(model, rate, config.seed, variables)
    _keep(config, run, data, initial)
    batches, volumes = training_batches(config, data, schedule.total, devices)
    choose_forms(config, schedule.total - run.last_step)
    step_on_devices = parallel_step(
        partial(
            loaded_step, seed=config.seed, patch_size=config.data.patch_size,
            objective=Objective.of(config),
        ),
        devices,
    )  # fmt: skip
    validation = Validation(config.trained, data.validation)

    with (
        Interruption() as interruption,
        Store(run) as store,
        _open_log(run, config.train.batch_size, schedule, rate) as log,
    ):
        # The held-out fold evaluates the training, so it must not select the checkpoint.
        training = Training(
            schedule, validation, store, log, interruption, keeps_best=not config.data.folds
        )
        first = training.restore(state, devices)
        processes.wait_for_all("the first step")
        for batch in log.timed(load_batches(batches, first, config.data.workers)):
            training.take_step(step_on_devices, batch, volumes)
            todo = schedule.after(training.step, training.is_asked_to_stop())
            if todo.writes:
                log.write()
            if todo.stores:
                training.store_last()
            if todo.validates:
                training.validate()
            if todo.stops:
                break
            if todo.stores or todo.validates:
                log.restart_clock()  # rates exclude checkpoints and validations
        if processes.any_process(interruption.asked):  # also after the last step
            raise training.stopped()


class Training:
    """A run during its training: its state and progress, and where they are stored."""

    def __init__(
        self,
        schedule: Schedule,
        validation: Validation,
        store: Store,
        log: TrainingLog,
        interruption: Interruption,
        *,
        keeps_best: bool,
    ):
        self._schedule = schedule
        self._validation = validation
        self._store = store
        self._log = log
        self._interruption = interruption
        self._keeps_best = keeps_best
        # Whether any process was asked to stop, as the last step and the step before it found.
        self._any_asked: Any = False
        self._any_asked_before: Any = False

    def restore(self, state: TrainState, devices: list[jax.Device]) -> int:
        """Restore the newest stored state, or use `state` in a new run. Return the steps done.

        A state is stored before it is validated. If the run was stopped in between, this validates
        the restored state.
        """
        state, self._progress = self._store.restore(state)
        self.step = int(state.step)
        processes.require_same("the last checkpoint", f"step {self.step}")
        self._state = on_every_device(state, devices)
        pending = (
            self.step > 0
            and self._schedule.validates_at(self.step)
            and self._progress.validated < self.step
        )
        self._log.begin(self.step, validated=not pending)
        if pending:
            self.validate()
        return self.step

    def take_step(
        self, step_on_devices: Callable[..., Any], batch: dict[str, np.ndarray], volumes: Any
    ) -> None:
        """Update the state with one batch."""
        self._any_asked_before = self._any_asked
        self._state, metrics, self._any_asked = step_on_devices(
            self._state, batch, volumes, self._interruption.asked
        )
        self.step += 1
        self._log.add(self.step, metrics)  # waits for the previous step

    def is_asked_to_stop(self) -> bool:
        """Return whether to stop after this step. The answer is the same in all processes.

        Processes receive a signal at different times, so each step combines the flags of all
        processes. This uses the result of the previous step, because reading the result of the
        current step would wait for it.
        """
        if jax.process_count() == 1:
            return self._interruption.asked
        return bool(self._any_asked_before)

    def store_last(self) -> None:
        """Store the state, so that the run can continue from it."""
        self._log.sync()
        self._store.save_last(self._state, self._progress)

    def validate(self) -> None:
        """Score the state, and store it if it is the best so far.

        Raises:
          Stopped: the run was asked to stop during the validation. This is never raised if there
            are several processes, because they cannot agree on it here.
        """
        result = self._validation(self._state.model_variables, self._gives_up)
        if result is None:
            if not self._store.has(self.step):
                self.store_last()
            raise self.stopped()
        scores, snapshot = result
        self._log.write_validation(self.step, scores, snapshot)
        self._progress = Progress(best_dice=self._progress.best_dice, validated=self.step)
        if self._keeps_best and scores["dice"] > self._progress.best_dice:  # False for NaN
            self._progress = Progress(best_dice=scores["dice"], validated=self.step)
            self._store.save_best(self._state, self._progress)
        self._store.note(self.step, self._progress)

    def _gives_up(self) -> bool:
        return jax.process_count() == 1 and self._interruption.asked

    def stopped(self) -> Stopped:
        """Return the exception that ends a run after its state was stored."""
        return Stopped(
            f"asked to stop: stored step {self.step} of {self._schedule.total}. Run the same "
            "command again to resume."
        )


def _keep(
    config: Configuration, run: RunFolder, data: TrainingSet, initial: TrainedNetwork | None
) -> None:
    """Check that the processes agree, then store configuration, data split and preprocessing."""
    processes.require_same("the data", json.dumps(data.split) + str(data.preprocessing))
    record = None
    if initial is not None:
        processes.require_same("config.init", _digest(initial.variables))
        record = Beginning(network=str(initial), about=initial.about)
        if processes.is_main():
            print(f"starting with the weights of {initial}")
            if fresh := config.model.map_names[count_common_maps(config, initial) :]:
                print(f"these maps start untrained: {', '.join(fresh)}")
    processes.main_first("run", lambda: run.keep(config, data.preprocessing, data.split, record))


def _open_log(
    run: RunFolder, batch_size: int, schedule: Schedule, rate: Callable[[int], Any]
) -> TrainingLog:
    """Return the log of the run. Only the main process writes files."""
    if not processes.is_main():
        return TrainingLog(None, batch_size, schedule.total, rate, None)
    events = EventFile(run.tensorboard)
    return TrainingLog(run.log_file, batch_size, schedule.total, rate, events)


def _digest(variables: dict[str, Any]) -> str:
    """Return a hash of the variables; equal numbers have equal hashes."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
