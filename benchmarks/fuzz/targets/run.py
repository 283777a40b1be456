"""Folders of runs and cross-validations, loaded as `msseg predict --model` loads them.

The files of the checkpoints are the target `checkpoint`.
"""

import contextlib
import json
import random
import shutil
from pathlib import Path

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_json, mutate_place
from benchmarks.fuzz.targets._networks import are_equal, variables, write_run
from benchmarks.fuzz.targets.json import as_text
from msseg_jax.models.agreed_options import agreed_options
from msseg_jax.models.folds import runs_of
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.json_files import read_json

NAME = "run"

FOLDS = {"fold_0": ["a"], "fold_1": ["b", "c"]}
_FILES = ("config.json", "preprocessing.json", "split.json", "initial.json", "log.jsonl")


def make(folder: Path) -> None:
    """Write a run, and a cross-validation of two runs."""
    write_run(folder / "run", {("last", 4): 4})
    for number, name in enumerate(FOLDS):
        write_run(folder / "folds" / name, {("last", 4): 4 + number}, len(FOLDS), number)
    (folder / "folds" / "folds.json").write_text(json.dumps(FOLDS), encoding="utf-8")


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Damage a JSON file of the run, or its folder."""
    name = rng.choice(("run", "run", "run", "folds"))
    shutil.copytree(seeds / name, case / "model", copy_function=shutil.copyfile)
    run = case / "model"
    if name == "folds":
        if rng.random() < 0.5:
            path = run / "folds.json"
            path.write_bytes(mutate_json(rng, path.read_text(encoding="utf-8")))
            return
        run = run / rng.choice(list(FOLDS))
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        if run.is_dir():
            _damage(rng, run)


def _damage(rng: random.Random, run: Path) -> None:
    path = run / rng.choice((_FILES[0], _FILES[0], _FILES[1], _FILES[1], *_FILES))
    match rng.randrange(12):
        case 0 if path.is_file():
            mutate_place(rng, path)
        case 1:
            last = run / "checkpoints" / "last"
            step = last / "4"
            if step.is_dir():
                step.rename(
                    last / rng.choice(("5", "-4", "04", "x", "4.partial", "9" * 30, "\u0664"))
                )
        case 2:
            shutil.rmtree(run / rng.choice(("checkpoints", "checkpoints/last")), ignore_errors=True)
        case 3:
            extra = run / rng.choice(("folds.json", "checkpoints/best", "checkpoints/last/7", "x"))
            if not extra.exists():
                extra.parent.mkdir(exist_ok=True, parents=True)
                rng.choice((extra.mkdir, lambda: extra.write_text("{}", encoding="utf-8")))()
        case 4:
            shutil.rmtree(run)
            rng.choice((lambda: None, lambda: run.mkdir(), lambda: run.write_bytes(b"x")))()
        case _ if path.is_file() and path.suffix == ".json":
            # An earlier damage may have left no JSON, or JSON that is nested too deeply.
            with contextlib.suppress(ValueError, RecursionError):
                path.write_bytes(mutate_json(rng, path.read_text(encoding="utf-8")))
        case _:
            pass


def use(case: Path) -> None:
    """Load the networks, and compare all that they contain with the files."""
    model = case / "model"
    paths = runs_of([model], "b")
    networks = [(path, network) for path in paths for network in trained_networks(path)]
    agreed_options([network for _, network in networks])
    for path, network in networks:
        run = RunFolder(path)
        stored = read_json(run.config_file)
        for section in ("model", "predict"):
            found = getattr(network.config, section).model_dump(mode="json")
            if any(stored[section][name] != value for name, value in found.items()):
                raise WrongReading(f"{run.config_file.name}: {section} is {found}")
        fitted = read_json(run.preprocessing_file)
        if as_text(network.preprocessing.model_dump(mode="json")) != as_text(fitted):
            raise WrongReading(f"{run.preprocessing_file.name} is {network.preprocessing}")
        seed = 5 if path.name == "fold_1" else 4
        if not are_equal(network.variables, variables(seed)):
            raise WrongReading("the variables are those of another network")
