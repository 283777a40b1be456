"""Training: the state, one step, and the loop around it."""

import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from msseg_jax.data.loader import load_batches
from msseg_jax.data.training_set import TrainingSet, find_enough
from msseg_jax.models.checkpoints import Checkpoints
from msseg_jax.models.configuration import check_config
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import build_model
from msseg_jax.system.interruption import Interruption, Stopped
from msseg_jax.training import processes as parallel
from msseg_jax.training.batches import hold_out, training_data
from msseg_jax.training.devices import AXIS, check_batch_size, on_every_device, parallel_step
from msseg_jax.training.log import TrainingLog
from msseg_jax.training.processes import is_main
from msseg_jax.training.schedule import learning_rate, make_schedule
from msseg_jax.training.step import TrainState, create_state, loaded_step
from msseg_jax.training.tensorboard import EventFile
from msseg_jax.training.validation import Validation


def train(
    config: ConfigDict, run: RunFolder, data: TrainingSet, initial: TrainedNetwork | None
) -> None:
    """Train the run of a folder, from its last checkpoint if it has one.

    Args:
      config: which `check_training` and `check_patients` have found good.
      run: which `create_or_continue` has found or made ready for it.
      data: from `prepare_data`.
      initial: from `initial_network`.

    Raises:
      InputError: before any work; it names the field, file or folder.
      TrainingError: the loss is no longer finite.
      Stopped: it was asked to stop, and its state is stored.
    """
    devices = jax.local_devices()
    schedule = make_schedule(config, len(data.training))
    rate = learning_rate(config, schedule)
    model = build_model(config, AXIS, config.train.compute_dtype)
    state = create_state(config, model, rate, initial and initial.variables)
    parallel.require_same("the data", json.dumps(data.split) + str(data.preprocessing))
    record = None
    if initial is not None:
        parallel.require_same("config.init", _digest(initial.variables))
        record = {"network": str(initial), "about": initial.about and asdict(initial.about)}
        if is_main():
            print(f"beginning with {initial}")
    parallel.main_first("run", lambda: run.keep(config, data.preprocessing, data.split, record))

    batches, volumes = training_data(config, data, schedule.total_steps, devices)
    step_on_devices = parallel_step(
        partial(
            loaded_step,
            seed=config.seed,
            targets=config.model.targets,
            patch_size=config.data.patch_size,
        ),
        devices,
    )
    validate = Validation(config, data.validation)
    train_config = config.train

    # Two of the last, so that one damaged by the machine still leaves one to continue from.
    with (
        Interruption() as interruption,
        Checkpoints(run.checkpoints / "last", keep=2) as last,
        Checkpoints(run.checkpoints / "best", keep=1) as best,
        TrainingLog(
            run.log_file if is_main() else None,
            train_config.batch_size, schedule.total_steps, rate,
            EventFile(run.tensorboard) if is_main() else None,
        ) as log,
    ):  # fmt: skip
        state, progress = restore_last(last, state)
        first_step = int(state.step)
        parallel.require_same("the last checkpoint", f"step {first_step}")
        state = on_every_device(state, devices)

        def stopped(step: int) -> Stopped:
            return Stopped(
                f"asked to stop: stored step {step} of {schedule.total_steps}; the same command "
                "goes on from there"
            )

        def keep_validated(step: int) -> None:
            """Score the state, and store it if it is the best so far.

            Raises:
              Stopped: it was given up. Never by one of several processes: they have no flag in
                common there.
            """
            given_up = partial(asked_to_stop, interruption, flag_of_any=False)
            result = validate(state.model_variables, given_up)
            if result is None:
                if step not in last.steps():
                    save(last, state, progress)
                raise stopped(step)
            scores, snapshot = result
            log.write_validation(step, scores, snapshot)
            progress["validated"] = step
            # Never where it is NaN; and a fold, which is held out to judge the training, must not
            # choose the checkpoint that it judges.
            if scores["dice"] > progress["best_dice"] and not config.data.folds:
                progress["best_dice"] = scores["dice"]
                save(best, state, progress)
            if is_main():
                last.set_progress(step, progress)

        def is_validated(step: int) -> bool:
            every = train_config.validate_every_steps
            return bool(data.validation) and (step == schedule.total_steps or step % every == 0)

        # A state is stored before it is validated, which may take long, and not at all where the
        # run is asked to stop.
        pending = first_step > 0 and is_validated(first_step) and progress["validated"] < first_step
        log.begin(first_step, validated=not pending)
        if pending:
            keep_validated(first_step)
        earlier_stop = False
        parallel.wait_for_all("the first step")
        for step, batch in enumerate(
            log.timed(load_batches(batches, first_step, config.data.workers)), start=first_step + 1
        ):
            state, metrics, stop = step_on_devices(state, batch, volumes, interruption.asked)
            log.add(step, metrics)  # which waits for the step before

            at_end = step == schedule.total_steps
            stops = not at_end and asked_to_stop(interruption, earlier_stop)
            earlier_stop = stop
            validates = is_validated(step) and not stops
            stores = at_end or stops or step % train_config.checkpoint_every_steps == 0
            # Before anything is stored, so that numbers that are not finite end the run first.
            if validates or stores or step % train_config.log_every_steps == 0:
                log.write()
            if stores:
                save(last, state, progress)
            if validates:
                keep_validated(step)
            if stops:
                break
            if validates or stores:
                log.restart_clock()  # the rates are those of the steps
        done = int(state.step)
        if parallel.any_process(interruption.asked):  # also in what followed the last step
            raise stopped(done)


def _digest(variables: dict) -> str:
    """The same for the same numbers."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def asked_to_stop(interruption: Interruption, flag_of_any) -> bool:
    """Whether to stop after this step; several processes must come to the same answer.

    Each has its signal at another moment, so they go by what the step before found of all flags.
    """
    return interruption.asked if jax.process_count() == 1 else bool(flag_of_any)


def check_training(config: ConfigDict, devices: list) -> None:
    """Raises InputError for a configuration that cannot be trained here."""
    check_config(config)
    check_batch_size(config.train.batch_size, len(devices))


def check_patients(config: ConfigDict) -> None:
    """Raises InputError where there are no patients, or too few: before any is made or read."""
    data, held_out = config.data, hold_out(config)
    if data.phantom_patients:
        groups = [[k] for k in range(data.phantom_patients)]
    else:
        _, groups = find_enough(Path(data.root), config.model.targets, held_out)
    make_schedule(config, sum(map(len, groups)) - held_out.largest(groups))


def save(checkpoints: Checkpoints, state: TrainState, progress: dict) -> None:
    """Store a state under its own step, with what `restore_last` gives back."""
    if not is_main():
        return
    checkpoints.save(int(state.step), state.model_variables, state.opt_state, progress)


def restore_last(checkpoints: Checkpoints, state: TrainState) -> tuple[TrainState, dict]:
    """The newest state, and how far the run has come; `state` itself in a new run.

    The latter is {'best_dice': of the validations so far, 'validated': step of the last one}.
    """
    newest = checkpoints.restore_newest(state.model_variables, state.opt_state)
    if newest is None:
        return state, {"best_dice": 0.0, "validated": 0}
    step, model, opt_state, progress = newest
    state = state.replace(step=jnp.int32(step), opt_state=opt_state, **model)
    return state, progress
