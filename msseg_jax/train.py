"""Training: the state, one step, and the loop around it."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from ml_collections import ConfigDict

from msseg_jax.checkpoint import Checkpoints, RunFolder
from msseg_jax.config import ConfigError, check_config
from msseg_jax.data.cache import open_patient
from msseg_jax.data.loader import PatchSource, Sampling, load_batches
from msseg_jax.data.preprocess import Settings
from msseg_jax.data.training_set import TrainingSet, prepare
from msseg_jax.events import EventFile
from msseg_jax.inference import compile_forward, segment_volume
from msseg_jax.losses import batch_dice_loss
from msseg_jax.model import SiameseMPUNet, build_model, initial_variables
from msseg_jax.parallel import AXIS, check_batch_size, on_every_device, parallel_step
from msseg_jax.report.snapshot import Snapshot, draw_snapshot
from msseg_jax.scores import compare_lesions, count_lesions
from msseg_jax.training_log import TrainingLog


class TrainState(train_state.TrainState):
    """Parameters, optimiser state and step, with batch norm's running statistics."""

    batch_stats: dict

    @property
    def model_variables(self) -> dict:
        """What the network needs to be applied."""
        return {"params": self.params, "batch_stats": self.batch_stats}


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


def create_state(config: ConfigDict, model: SiameseMPUNet, rate: optax.Schedule) -> TrainState:
    """The initial state: a function of config.seed."""
    state = TrainState.create(
        apply_fn=model.apply, tx=optax.adam(rate), **initial_variables(model, config.seed)
    )
    return state.replace(step=jnp.zeros((), jnp.int32))  # a Python 0 would compile the step twice


def train_step(state: TrainState, batch: dict, *, dropout_key: jax.Array):
    """One update: (state, batch) -> (state, metrics), on one device's share of the batch.

    Args:
      batch: time01, time02 (B, S, S, S, 1); targets (B, S, S, S, T); patch_ids (B,).
      dropout_key: of the run; the patch ids make it a patch's own.

    Returns:
      The new state and {'loss', 'gradient_norm'}, the same on every device.
    """

    def loss_of(params):
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
    # The loss is already that of the global batch, and the sums in it are differentiated on every
    # device: each holds `devices` times its own part of the gradient, so the mean is their sum.
    gradients = jax.lax.pmean(gradients, AXIS)
    state = state.apply_gradients(grads=gradients, batch_stats=batch_stats)
    return state, {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}


def train(config: ConfigDict, run: RunFolder) -> TrainingSet:
    """Train the run of a folder, from its last checkpoint if it has one; returns its patients.

    Raises:
      InputError: before any work; it names the field, file or folder.
      TrainingError: the loss is no longer finite.
    """
    devices = jax.local_devices()
    check_training(config, devices)
    run.create_or_continue(config)
    data = prepare_data(config, run)
    schedule = make_schedule(config, len(data.training))
    rate = learning_rate(config, schedule)
    state = create_state(config, build_model(config, axis_name=AXIS), rate)
    run.keep(config, data.preprocessing, data.split)

    dropout_key = jax.random.fold_in(jax.random.key(config.seed), 1)  # not the initialiser's
    step_on_devices = parallel_step(partial(train_step, dropout_key=dropout_key), devices)
    validate = Validation(config, data.validation)
    train_config = config.train

    # Two of the last, so that one damaged by the machine still leaves one to continue from.
    with (
        Checkpoints(run.checkpoints / "last", keep=2) as last,
        Checkpoints(run.checkpoints / "best", keep=1) as best,
        TrainingLog(
            run.log_file, train_config.batch_size, schedule.total_steps, rate,
            EventFile(run.tensorboard),
        ) as log,
    ):  # fmt: skip
        state, best_dice = restore_last(last, state)
        state = on_every_device(state, devices)
        first_step = int(state.step)
        log.begin(first_step)
        for step, batch in enumerate(
            log.timed(batches_from(first_step, config, data, schedule)), start=first_step + 1
        ):
            state, metrics = step_on_devices(state, batch)
            log.add(step, metrics)

            at_end = step == schedule.total_steps
            validates = data.validation and (
                at_end or step % train_config.validate_every_steps == 0
            )
            stores = at_end or step % train_config.checkpoint_every_steps == 0
            # Before anything is stored, so that numbers that are not finite end the run first.
            if validates or stores or step % train_config.log_every_steps == 0:
                log.write()
            if validates:
                scores, snapshot = validate(state)
                log.write_validation(step, scores, snapshot)
                if scores["dice"] > best_dice:  # never, where it is NaN
                    best_dice = scores["dice"]
                    save(best, state, best_dice)
            if stores:
                save(last, state, best_dice)
            if validates or stores:
                log.restart_clock()  # the rates are those of the steps
    return data


def check_training(config: ConfigDict, devices: list) -> None:
    """Raises InputError for a configuration that cannot be trained here."""
    check_config(config)
    check_batch_size(config.train.batch_size, len(devices))
    if patients := config.data.phantom_patients:  # known before they are made
        training = patients - config.data.validation_patients
        if training < 1:
            raise ConfigError(
                f"config.data.validation_patients is {config.data.validation_patients}; wanted "
                f"fewer than the {patients} of config.data.phantom_patients"
            )
        make_schedule(config, training)


def prepare_data(config: ConfigDict, run: RunFolder) -> TrainingSet:
    """The patients of config.data.root, checked, split and in the cache."""
    cache = Path(config.data.cache_dir or run.path / "cache")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"config.data.cache_dir is {cache}: {error}; wanted a folder to write in"
        ) from error
    settings = Settings(
        float(config.data.spacing_mm), tuple(config.data.percentiles), config.data.patch_size
    )
    return prepare(
        Path(config.data.root), config.model.targets, settings,
        config.data.validation_patients, config.seed, cache,
    )  # fmt: skip


def batches_from(
    first_step: int, config: ConfigDict, data: TrainingSet, schedule: Schedule
) -> Iterator[dict[str, np.ndarray]]:
    """The run's batches after `first_step` steps, to its end."""
    sampling = Sampling(config.seed, config.data.patch_size, config.data.lesion_patch_probability)
    patches = schedule.total_steps * config.train.batch_size
    source = PatchSource(data.training, sampling, patches)
    return load_batches(source, config.train.batch_size, first_step, config.data.workers)


def save(checkpoints: Checkpoints, state: TrainState, best_dice: float) -> None:
    """Store a state under its own step."""
    checkpoints.save(
        int(state.step), state.model_variables, state.opt_state, {"best_dice": best_dice}
    )


def restore_last(checkpoints: Checkpoints, state: TrainState) -> tuple[TrainState, float]:
    """The newest state and the best validation Dice so far; `state` and 0 in a new run."""
    newest = checkpoints.restore_newest(state.model_variables, state.opt_state)
    if newest is None:
        return state, 0.0
    step, model, opt_state, progress = newest
    state = state.replace(step=jnp.int32(step), opt_state=opt_state, **model)
    return state, progress["best_dice"]


class Validation:
    """Whole-volume inference on the held-out patients, on the isotropic grid.

    One of them is shown, in every run and evaluation the same: the first that has new lesions, or
    else the first.
    """

    def __init__(self, config: ConfigDict, patients: list[tuple[str, Path]]):
        self._config = config
        self._patients = patients
        self._forward = compile_forward(build_model(config))
        with_lesions = (n for n, f in patients if len(open_patient(n, f).lesion_voxels))
        self._shown = next(with_lesions, patients[0][0] if patients else None)

    def __call__(self, state: TrainState) -> tuple[dict[str, float], Snapshot]:
        """Scores of all patients together, and the picture of one of them.

        The scores are {'dice', 'detected', 'missed', 'false'}.

        Dice is that of all voxels of all patients, so that patients without a new lesion count
        too; NaN where there is neither a reference nor a predicted voxel.
        """
        predict, spacing_mm = self._config.predict, (self._config.data.spacing_mm,) * 3
        # On one device: a state that lies on all of them would have each compute every tile.
        variables = jax.device_put(state.model_variables, jax.local_devices()[0])
        overlap = total = 0
        lesions = Counter(detected=0, missed=0, false=0)
        for name, folder in self._patients:
            patient = open_patient(name, folder)
            probability = segment_volume(
                self._forward, variables, patient.images, patient.brain,
                tile=(self._config.data.patch_size,) * 3,
                overlap=predict.overlap, batch_size=predict.batch_size,
            )  # fmt: skip
            prediction, reference = probability > predict.threshold, patient.targets[0] == 1
            overlap += int((prediction & reference).sum())
            total += int(prediction.sum()) + int(reference.sum())
            lesions.update(count_lesions(compare_lesions(reference, prediction, spacing_mm)))
            if name == self._shown:
                snapshot = draw_snapshot(
                    name, patient.affine, patient.images, patient.brain, reference, prediction
                )
        return {"dice": 2 * overlap / total if total else math.nan, **lesions}, snapshot
