"""A complete run: the training, then predictions and scores of the held-out patients."""

from pathlib import Path

import jax

from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.training_set import TrainingSet
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.outputs import Outputs
from msseg_jax.models.folds import Folds
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.errors import InputError
from msseg_jax.training import held_out, work_folder
from msseg_jax.training.batches import check_patients, prepare_data
from msseg_jax.training.devices import check_batch_size, check_compute_dtype
from msseg_jax.training.loop import train
from msseg_jax.training.phantom_data import use_phantoms
from msseg_jax.training.processes import main_first
from msseg_jax.training.warm_start import initial_network


def run_experiment(config: Configuration, workdir: Path) -> None:
    """Train the run in `workdir`, then predict its held-out patients and print their scores.

    Raises:
      InputError: some input is invalid; the message says what is wrong and what to do.
      Stopped: the run was asked to stop, and its state is stored.
    """
    check_batch_size(config.train.batch_size, jax.device_count())
    check_compute_dtype(config.train.compute_dtype)
    if Folds(workdir).exist:
        raise InputError(
            f"--workdir={workdir} contains a cross-validation. Use --mode=cross_validate to "
            "continue it, or choose another --workdir."
        )
    run = RunFolder(workdir)
    # Check the input before any work, so that errors are reported at once.
    initial = initial_network(config, run)
    check_patients(config)
    with work_folder.held(run.path):
        run.create_or_continue(config)
        config = use_phantoms(config, run.path)
        data = prepare_data(config, run, initial)
        train(config, run, data, initial)
        main_first("scores", lambda: _score_held_out(config, run, data))


def _score_held_out(config: Configuration, run: RunFolder, data: TrainingSet) -> None:
    """Predict the held-out patients of a trained run and print their scores."""
    print(f"trained run: {run.path}")
    names = [name for name, _ in data.validation]
    if not names:
        return
    ensemble = Ensemble([run.path])
    (used,) = (member.network for member in ensemble.members)
    if used.kind == "last" and not config.data.folds:
        print(
            "no validation found a voxel of a new lesion, so there is no best checkpoint: the last "
            "one is used"
        )
    root = Path(config.data.root)
    held_out.predict(ensemble, root, names, Outputs(run.predictions, run.probabilities))
    print(f"held-out patients, predicted by the {used.kind} checkpoint (step {used.step}):")
    held_out.print_scores(root, run, names)
