"""Checkpoints of a run (orbax, OCDBT), restored to predict and to continue a training."""

import contextlib
import json
import random
import shutil
from pathlib import Path

import jax

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_bytes, mutate_json, mutate_place
from benchmarks.fuzz.targets._networks import (
    OPTIMISER,
    are_equal,
    shapes,
    variables,
    write_run,
)
from msseg_jax.models.checkpoints import Checkpoints, restore_for_inference
from msseg_jax.models.run_folder import RunFolder

NAME = "checkpoint"

PROGRESS = "progress/metadata"  # in a checkpoint
SEEDS = {("best", 2): 2, ("last", 3): 3, ("last", 4): 4}


def make(folder: Path) -> None:
    """Write a run with three checkpoints."""
    write_run(folder / "run", SEEDS)


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Damage one to three files of the checkpoints, and perhaps remove the other checkpoints."""
    # Only the checkpoints are needed.
    shutil.copytree(
        seeds / "run" / "checkpoints", case / "checkpoints", copy_function=shutil.copyfile
    )
    if rng.random() < 0.7:
        shutil.rmtree(case / "checkpoints" / "best")
    if rng.random() < 0.8:
        shutil.rmtree(case / "checkpoints" / "last" / "3")
    if rng.random() < 0.5:
        (case / "for_training").touch()
    everything = sorted((case / "checkpoints").rglob("*"))
    files = [path for path in everything if path.is_file()]
    models = [path for path in files if "model" in path.parts]
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        path = rng.choice(models if rng.random() < 0.7 else files)
        if path.is_file():
            _damage(rng, path, files)


def _damage(rng: random.Random, path: Path, files: list[Path]) -> None:
    match rng.randrange(12):
        case 0:
            mutate_place(rng, path)
        case 1:
            other = rng.choice(files)
            if other.is_file():
                path.write_bytes(other.read_bytes())
        case 2:
            folder = path.parent
            if rng.random() < 0.5:
                shutil.rmtree(folder)
            else:
                folder.rename(folder.with_name(folder.name + "x"))
        case 3 | 4 if path.name in ("_METADATA", "_CHECKPOINT_METADATA", "metadata"):
            with contextlib.suppress(ValueError):  # it is damaged already
                path.write_bytes(mutate_json(rng, path.read_text(encoding="utf-8")))
        case _:
            path.write_bytes(mutate_bytes(rng, path.read_bytes()))


def use(case: Path) -> None:
    """Restore the checkpoint, and compare the numbers with those that were stored."""
    optimiser = OPTIMISER
    if (case / "for_training").exists():
        with Checkpoints(case / "checkpoints" / "last", create=False) as place:
            found = place.restore_newest(shapes(), jax.tree.map(jax.typeof, OPTIMISER))
        if found is None:
            return
        kind = "last"
        step, model, optimiser, progress = found
        content = json.loads(
            (case / "checkpoints" / kind / str(step) / PROGRESS).read_text(encoding="utf-8")
        )
        if progress.model_dump() != content:
            raise WrongReading(f"step {step}: {progress}, not {content}")
    else:
        model, kind, step = restore_for_inference(RunFolder(case), shapes())
    described = case / "checkpoints" / kind / str(step) / "_CHECKPOINT_METADATA"
    if described.is_file() and b"digests" not in described.read_bytes():
        return  # taken for a checkpoint of an early version, which had none
    if not are_equal(model, variables(SEEDS[kind, step])):
        raise WrongReading(f"{kind} step {step}: other numbers")
    if not are_equal(optimiser, OPTIMISER):
        raise WrongReading(f"{kind} step {step}: another state of the optimiser")
