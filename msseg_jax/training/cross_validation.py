"""Cross-validation: train one run per fold, and score each run on its held-out patients."""

import json
from functools import partial
from pathlib import Path

import jax

from msseg_jax.configuration.sections import Configuration
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.outputs import Outputs
from msseg_jax.models.folds import Folds
from msseg_jax.models.model_file import TrainedNetwork
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.words import count_of
from msseg_jax.training import held_out, work_folder
from msseg_jax.training.batches import check_patients, prepare_data
from msseg_jax.training.devices import check_batch_size
from msseg_jax.training.loop import train
from msseg_jax.training.phantom_data import use_phantoms
from msseg_jax.training.processes import is_main, main_first
from msseg_jax.training.warm_start import initial_network


def cross_validate(config: Configuration, workdir: Path) -> None:
    """Train one run per fold, predict each fold with the run that held it out, and score all.

    Runs and predictions that are complete are kept. The others continue where they stopped.

    Raises:
      InputError: some input is invalid; the message says what is wrong and what to do.
      Stopped: the training was asked to stop, and its state is stored.
    """
    _check(config, workdir)
    folds = Folds(Path(workdir).resolve())
    runs = [RunFolder(folds.run(fold)) for fold in range(config.data.folds)]
    # Check the input before any work, so that errors are reported at once.
    initial = [initial_network(config, run) for run in runs]
    check_patients(config)
    with work_folder.held(folds.path, *(run.path for run in runs)):
        _train_and_score(config, folds, runs, initial)


def _train_and_score(
    config: Configuration,
    folds: Folds,
    runs: list[RunFolder],
    initial: list[TrainedNetwork | None],
) -> None:
    """Train and predict one fold after the other, then score all. The folders must be locked."""
    for fold, run in enumerate(runs):
        run.create_or_continue(_of_fold(config, fold, folds))
    config = use_phantoms(config, folds.path)
    configs = [_of_fold(config, fold, folds) for fold in range(config.data.folds)]
    first = prepare_data(configs[0], runs[0], initial[0])
    patients = _keep_folds(folds, first.folds, runs, config.data.root)
    root, outputs = Path(config.data.root), Outputs(folds.predictions, folds.probabilities)
    for fold, (run, own, names) in enumerate(zip(runs, configs, patients, strict=True)):
        data = first if fold == 0 else prepare_data(own, run, initial[fold])
        if is_main():
            none = "" if data.held_out_lesions else ", none with new lesions"
            print(
                f"fold {fold} of {len(runs)} (numbered from 0), "
                f"{count_of(len(names), 'patient')} held out{none}: {run.path}"
            )
        train(own, run, data, initial[fold])
        main_first(f"fold {fold}", partial(_predict_fold, run, root, names, outputs))
    main_first("scores", partial(_score_folds, folds, root, patients))


def _check(config: Configuration, workdir: Path) -> None:
    """Raise InputError if the configuration or the folder does not allow a cross-validation."""
    check_batch_size(config.train.batch_size, jax.device_count())
    if not config.data.folds or config.data.fold:
        raise InputError(
            f"config.data.folds is {config.data.folds} and config.data.fold is {config.data.fold}. "
            "--mode=cross_validate trains every fold: set config.data.folds to 2 or more, and "
            "leave config.data.fold at 0."
        )
    if RunFolder(workdir).begun:
        raise InputError(
            f"--workdir={workdir} contains a single run. Use --mode=train to continue it, or "
            "choose another --workdir."
        )


def _of_fold(config: Configuration, fold: int, folds: Folds) -> Configuration:
    """Return the configuration of the run that holds out this fold."""
    cache = config.data.cache_dir or str(folds.path / "cache")
    return config.with_data(fold=fold, cache_dir=cache)


def _keep_folds(
    folds: Folds, patients: list[list[str]], runs: list[RunFolder], root: str
) -> list[list[str]]:
    """Store the patients of each fold, or check that they are the same as at the start.

    Raises:
      InputError: they differ.
    """
    if folds.exist and folds.load() != patients and any(run.begun for run in runs):
        raise InputError(
            f"{folds.file}: the cross-validation was started with other patients, or other new "
            f"lesions, than {root} contains now. Restore the old data, or choose another --workdir."
        )
    main_first("folds", lambda: folds.save(patients))
    return patients


def _predict_fold(run: RunFolder, root: Path, names: list[str], outputs: Outputs) -> None:
    """Predict the held-out patients of a trained run, unless this checkpoint already did."""
    ensemble = Ensemble([run.path])
    (used,) = (member.network for member in ensemble.members)
    checkpoint = {"kind": used.kind, "step": used.step}
    record = run.path / "predicted.json"
    files = [path for name in names for path in outputs.of(name).paths]
    if _recorded(record) == checkpoint and all(path.is_file() for path in files):
        print("its held-out patients are already predicted")
        return
    record.unlink(missing_ok=True)
    held_out.predict(ensemble, root, names, outputs)
    write_beside(
        record, lambda path: path.write_text(json.dumps(checkpoint) + "\n", encoding="utf-8")
    )


def _recorded(record: Path) -> object:
    """Return the checkpoint that predicted a fold, or None if the fold must be predicted (again).

    A damaged record is no reason to stop, because it and the predictions can be made again.
    """
    if not record.is_file():
        return None
    try:
        content = read_json(record)
    except InputError:
        content = None
    if not isinstance(content, dict) or content.keys() != {"kind", "step"}:
        print(f"{record}: is damaged, so the patients of this fold are predicted again")
        return None
    return content


def _score_folds(folds: Folds, root: Path, patients: list[list[str]]) -> None:
    """Score the predictions of all folds together and print the table."""
    everyone = sorted(name for names in patients for name in names)
    print(f"{count_of(len(everyone), 'patient')}, each predicted by the run that held it out:")
    held_out.print_scores(root, folds, everyone)
