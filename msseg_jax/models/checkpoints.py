"""The stored states of a run (orbax)."""

import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from msseg_jax.models.run_folder import RunError, RunFolder, logger
from msseg_jax.system.atomic import write_beside


class Checkpoints:
    """The states of one run, under `last` or `best`: `model`, `optimiser` and `progress` items.

    The items are separate, so that inference reads the model alone. Orbax writes each checkpoint
    beside its place and renames it.
    """

    def __init__(self, folder: Path, keep: int = 1, create: bool = True):
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        # Orbax would have all processes save together what is spread over them. Here each has all
        # of it, so each acts alone: the main one writes, and all read.
        alone = jax.process_index()
        main = alone == 0
        options = ocp.CheckpointManagerOptions(
            read_only=not main, max_to_keep=keep if main else None,
            save_interval_steps=1 if main else 0,  # else orbax warns that it is not read-only
            create=False, enable_async_checkpointing=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=str(alone)
            ),
        )  # fmt: skip
        self._manager = ocp.CheckpointManager(
            folder, options=options, item_names=("model", "optimiser", "progress")
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, model, optimiser, progress: dict) -> None:
        """Write a checkpoint, in place of any of this step or later; returns when it is complete.

        Later ones are left over from a run that was stopped between two checkpoints and is doing
        those steps again; orbax would not write an earlier one beside them.

        Raises:
          RunError: the disk is full, or cannot be written. Earlier checkpoints stay.
        """
        model, optimiser = jax.device_get((model, optimiser))
        try:
            for later in self.steps():
                if later >= step:
                    self._manager.delete(later)
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(model),
                    optimiser=ocp.args.StandardSave(optimiser),
                    progress=ocp.args.JsonSave(progress),
                ),
            )
            self._manager.wait_until_finished()
        except Exception as error:  # orbax has no error of its own for a disk that is full
            raise RunError(self._not_saved(step, f"{type(error).__name__}: {error}")) from error
        if not saved:
            raise RunError(self._not_saved(step, "orbax did not say why"))

    def set_progress(self, step: int, progress: dict) -> None:
        """Change the progress that a checkpoint holds, if there is one of this step.

        Its one file is replaced: a checkpoint that is written anew is missing for a moment.

        Raises:
          RunError: as `save`. The checkpoint stays as it was.
        """
        if step not in self.steps():
            return
        file = Path(self._manager.directory) / str(step) / "progress" / "metadata"  # of JsonSave
        try:
            write_beside(file, lambda path: path.write_text(json.dumps(progress)))
        except OSError as error:
            raise RunError(self._not_saved(step, str(error))) from error

    def _not_saved(self, step: int, why: str) -> str:
        return (
            f"{self._manager.directory}: step {step} could not be stored ({why}); wanted room on "
            "the disk and the right to write: when there is, the same command goes on from the "
            f"last complete checkpoint ({max(self.steps(), default='none yet')})"
        )

    def restore_newest(self, model, optimiser) -> tuple | None:
        """(step, model, optimiser, progress) of the newest readable checkpoint; None if there is
        none at all. The arguments give the shapes.

        Raises:
          RunError: there are checkpoints, and none of them can be read.
        """
        return self._newest(
            ocp.args.Composite(
                model=ocp.args.StandardRestore(_abstract(model)),
                optimiser=ocp.args.StandardRestore(_abstract(optimiser)),
                progress=ocp.args.JsonRestore(),
            ),
            ("model", "optimiser", "progress"),
        )

    def restore_newest_model(self, model) -> tuple | None:
        """(step, model) of the newest readable checkpoint; as `restore_newest`."""
        args = ocp.args.Composite(model=ocp.args.StandardRestore(_abstract(model)))
        return self._newest(args, ("model",))

    def _newest(self, args, items: tuple[str, ...]) -> tuple | None:
        failures = []
        for step in self.steps():
            try:
                restored = self._manager.restore(step, args=args)
                return step, *(restored[item] for item in items)
            except Exception as error:  # orbax has no error of its own for damaged files
                failures.append(f"step {step}: {type(error).__name__}: {error}")
                logger.warning(
                    "%s: step %d cannot be read: %s", self._manager.directory, step, error
                )
        if failures:
            raise RunError(
                f"{self._manager.directory}: no checkpoint can be read: damaged, or of another "
                "network; give back a copy, or train anew in another --workdir\n"
                + "\n".join(failures)
            )
        return None


def _abstract(tree):
    """Shapes with this process's first device: a checkpoint of 4 devices loads on 1."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def restore_for_inference(run: RunFolder, model_shapes) -> tuple:
    """(model variables, 'best' or 'last', step): the best of a run, or its last where none is.

    Raises:
      RunError: the run has no checkpoint.
    """
    for kind in ("best", "last"):
        folder = run.checkpoints / kind
        if not folder.is_dir():
            continue
        try:
            with Checkpoints(folder, create=False) as checkpoints:
                if newest := checkpoints.restore_newest_model(model_shapes):
                    step, model = newest
                    return model, kind, step
        except RunError as error:
            if kind == "last":
                raise
            logger.warning("%s; the last checkpoint takes its place", error)
    raise RunError(
        f"{run.checkpoints}: no checkpoint in it; wanted a trained run: train it on with "
        "launch.py, or check the path"
    )
