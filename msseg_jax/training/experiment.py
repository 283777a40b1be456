"""The whole of a run, or of a cross-validation: phantoms if asked for, training, predictions and
scores of the held-out patients."""

import json
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from msseg_jax.data.training_set import TrainingSet
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.patient import Outputs, predict_patients
from msseg_jax.models.configuration import ConfigError
from msseg_jax.models.folds import Folds
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.simulate.phantom import write_phantoms
from msseg_jax.system.atomic import whole_folder, write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.training.batches import prepare_data
from msseg_jax.training.loop import check_patients, check_training, train
from msseg_jax.training.processes import is_main, main_first
from msseg_jax.training.warm_start import initial_network
from msseg_jax.volumes.layout import find_patients


def run_experiment(config: ConfigDict, workdir: Path) -> None:
    """Train the run of `workdir`, then predict its held-out patients and print their scores.

    Raises:
      InputError: for every kind of bad input; the message says what is wrong and what to do.
    """
    check_training(config, jax.devices())
    if Folds(workdir).exist:
        raise InputError(
            f"--workdir={workdir} holds a cross-validation; wanted --mode=cross_validate to go on "
            "with it, or another --workdir"
        )
    run = RunFolder(workdir)
    initial = initial_network(config, run)  # here, so that a wrong one is told of before any work
    check_patients(config)
    run.create_or_continue(config)
    use_phantoms(config, run.path)
    data = prepare_data(config, run, initial)
    train(config, run, data, initial)
    main_first("scores", lambda: score_held_out(config, run, data))


def score_held_out(config: ConfigDict, run: RunFolder, data: TrainingSet) -> None:
    """Predict the held-out patients of a trained run and print their scores."""
    print(f"trained: {run.path}")
    held_out = [name for name, _ in data.validation]
    if not held_out:
        return
    ensemble = Ensemble([run.path])
    (used,) = (member.network for member in ensemble.members)
    if used.kind == "last" and not config.data.folds:
        print("no validation found any voxel of a new lesion, so there is no best checkpoint")
    root = Path(config.data.root)
    _predict(ensemble, root, held_out, Outputs(run.predictions, run.probabilities))
    print(f"held-out patients, by the {used.kind} checkpoint (step {used.step}):")
    print_scores(root, run, held_out)


def cross_validate(config: ConfigDict, workdir: Path) -> None:
    """Train a run for each fold; score the predictions that each makes of its fold, all together.

    Of what was begun before, what is complete is kept, and the rest goes on where it stopped.

    Raises:
      InputError: for every kind of bad input; the message says what is wrong and what to do.
    """
    check_training(config, jax.devices())
    if not config.data.folds or config.data.fold:
        raise ConfigError(
            f"config.data.folds is {config.data.folds} and config.data.fold is {config.data.fold}; "
            "--mode=cross_validate trains every fold: wanted 2 or more folds, and no fold given"
        )
    if RunFolder(workdir).begun:
        raise InputError(
            f"--workdir={workdir} holds a run; wanted --mode=train to go on with it, or another "
            "--workdir"
        )
    folds = Folds(Path(workdir).resolve())
    runs = [RunFolder(folds.run(fold)) for fold in range(config.data.folds)]
    initial = [initial_network(config, run) for run in runs]  # here as in `run_experiment`
    check_patients(config)
    for fold, run in enumerate(runs):  # all of them before any work
        run.create_or_continue(_of_fold(config, fold, folds))
    use_phantoms(config, folds.path)
    configs = [_of_fold(config, fold, folds) for fold in range(config.data.folds)]

    first = prepare_data(configs[0], runs[0], initial[0])
    patients = first.folds
    if folds.exist and folds.load() != patients and any(run.begun for run in runs):
        raise InputError(
            f"{folds.file}: the cross-validation was begun with other patients, or other new "
            f"lesions, than {config.data.root} holds now; give the old data back, or choose "
            "another --workdir"
        )
    main_first("folds", lambda: folds.save(patients))
    outputs = Outputs(folds.predictions, folds.probabilities)
    for fold, (run, own, held_out) in enumerate(zip(runs, configs, patients, strict=True)):
        if is_main():
            print(f"fold {fold} (0 to {len(runs) - 1}), {len(held_out)} held out: {run.path}")
        data = first if fold == 0 else prepare_data(own, run, initial[fold])
        train(own, run, data, initial[fold])
        predict = partial(_predict_fold, run, Path(config.data.root), held_out, outputs)
        main_first(f"fold {fold}", predict)
    main_first("scores", partial(score_folds, config, folds, patients))


def score_folds(config: ConfigDict, folds: Folds, patients: list[list[str]]) -> None:
    """Score the predictions of all folds together and print the table."""
    everyone = sorted(name for held_out in patients for name in held_out)
    print(f"{len(everyone)} patients, each by the run that has not seen it:")
    print_scores(Path(config.data.root), folds, everyone)


def _of_fold(config: ConfigDict, fold: int, folds: Folds) -> ConfigDict:
    """The configuration of the run that holds out a fold."""
    own = config.copy_and_resolve_references()
    own.data.fold = fold
    own.data.cache_dir = config.data.cache_dir or str(folds.path / "cache")
    return own


def _predict_fold(run: RunFolder, root: Path, held_out: list[str], outputs: Outputs) -> None:
    """Predict the held-out patients of a trained run, unless its checkpoint has done so before."""
    ensemble = Ensemble([run.path])
    (used,) = (member.network for member in ensemble.members)
    checkpoint = {"kind": used.kind, "step": used.step}
    record = run.path / "predicted.json"
    files = [path for name in held_out for path in outputs.of(name).wanted]
    if (
        record.is_file()
        and read_json(record) == checkpoint
        and all(path.is_file() for path in files)
    ):
        print("its held-out patients are predicted")
        return
    record.unlink(missing_ok=True)
    _predict(ensemble, root, held_out, outputs)
    write_beside(record, lambda path: path.write_text(json.dumps(checkpoint) + "\n"))


def _predict(ensemble: Ensemble, root: Path, names: list[str], outputs: Outputs) -> None:
    """Write masks and probabilities of some patients of a folder."""
    patients = [patient for patient in find_patients(root, targets=0) if patient.name in names]
    for folder in outputs.wanted:
        folder.mkdir(exist_ok=True)
    failures = predict_patients(ensemble, patients, ensemble.options(), outputs, overwrite=True)
    if failures:
        raise InputError(f"held-out patients could not be predicted: {failures}")


def print_scores(root: Path, place: RunFolder | Folds, names: list[str]) -> None:
    """Evaluate what a run, or a cross-validation, predicted of some patients; print the table."""
    from msseg_jax.cli import evaluate  # its imports take seconds, and a training can do without

    evaluation = evaluate.run(
        root, place.predictions, place.evaluation, place.probabilities, names, models=[place.path]
    )
    print(evaluate.format_table(evaluation))
    evaluate.say_left_out(evaluation)
    print(f"report: {evaluate.report_file(place.evaluation)}")


def use_phantoms(config: ConfigDict, workdir: Path) -> None:
    """Make phantom patients the data of a configuration that asks for them."""
    if config.data.phantom_patients:
        root = workdir / "phantoms"
        config.data.root = str(root)
        main_first("phantoms", lambda: make_phantoms(config, root))


def make_phantoms(config: ConfigDict, root: Path) -> None:
    """Make the phantom patients of a configuration, where they are not there.

    Raises:
      InputError: there are other files in their place.
    """
    asked_for = {
        "patients": config.data.phantom_patients,
        "seed": config.seed,
        "spacing_mm": config.data.phantom_spacing_mm,
    }
    record = root / "phantoms.json"  # says that the folder is of our making, and what is in it
    if record.is_file() and read_json(record) == asked_for:
        return
    if root.exists() and not record.is_file():
        raise InputError(
            f"{root}: was not made by this run, and its phantoms would take its place; move it "
            "away, or choose another --workdir"
        )
    print(f"making {config.data.phantom_patients} phantom patients in {root}")
    # What is replaced is of a configuration that was not trained in the end.
    with whole_folder(root, replace=True) as new:
        write_phantoms(new, asked_for["patients"], config.seed, spacing_mm=asked_for["spacing_mm"])
        (new / record.name).write_text(json.dumps(asked_for) + "\n")
