"""Save and restore the checkpoints of a run, with orbax."""

import hashlib
import logging
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from msseg_jax.configuration.section import Section
from msseg_jax.models.orbax_errors import reason_of_failure, without_tracebacks
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.durability import sync_folder, sync_tree
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.shown import shortened

Tree = Any  # pytree of arrays, or of their shapes

_UNFINISHED = ".orbax-checkpoint-tmp"  # part of the names of checkpoints that orbax ignores

logger = logging.getLogger(__name__)


class CheckpointError(InputError):
    """There are checkpoints, but none of them can be read."""


class Progress(Section):
    """The results of validation so far, which are stored with the state of a run."""

    best_dice: float = 0.0  # best Dice of all validations so far
    validated: int = 0  # step of the last validation


class Checkpoints:
    """The checkpoints in one folder of a run, `last` or `best`.

    Each checkpoint has four items: `model`, `optimiser`, `progress` and `digests`. They are
    separate, so that inference reads only the model. The digests show whether the numbers that were
    read are those that were stored, because orbax does not notice damaged numbers. Orbax writes a
    checkpoint under a temporary name and renames it when it is complete.
    """

    def __init__(self, folder: Path, keep: int = 1, create: bool = True):
        if create:
            folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _delete_unfinished(folder)
        # By default, orbax expects a state that is spread over all processes, and lets them save it
        # together. Here each process has the whole state, so each works independently: the first
        # process writes, and all processes read.
        process = jax.process_index()
        writes = process == 0
        options = ocp.CheckpointManagerOptions(
            read_only=not writes, max_to_keep=None,  # `save` deletes the old ones
            save_interval_steps=1 if writes else 0,  # other values make orbax warn about read_only
            create=False, enable_async_checkpointing=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=process, active_processes={process},
                barrier_sync_key_prefix=str(process),
            ),
        )  # fmt: skip
        self._keep = keep
        try:
            self._manager = ocp.CheckpointManager(
                folder, options=options, item_names=("model", "optimiser", "progress", "digests")
            )
        except Exception as error:  # orbax has no specific error for damaged files
            raise CheckpointError(
                f"{folder}: cannot be opened ({_reason(error)}). Restore it from a copy, or train "
                "again in another --workdir."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, model: Tree, optimiser: Tree, progress: Progress) -> None:
        """Write a checkpoint, and delete those of this step or later. Return when it is complete.

        Then delete the oldest ones, so that `keep` are left.

        There are later checkpoints if a run was continued from an earlier one and repeats those
        steps. They are deleted, because orbax does not write a step that is earlier than the
        newest.

        Raises:
          InputError: the disk is full or not writable. Earlier checkpoints stay.
        """
        model, optimiser = jax.device_get((model, optimiser))
        folder = Path(self._manager.directory)
        try:
            with without_tracebacks():
                # Threads of TensorStore may have written once more after a save had failed.
                _delete_unfinished(folder)
                self._delete([later for later in self.steps() if later >= step])
                saved = self._manager.save(
                    step,
                    args=ocp.args.Composite(
                        model=ocp.args.StandardSave(model),
                        optimiser=ocp.args.StandardSave(optimiser),
                        progress=ocp.args.JsonSave(progress.model_dump()),
                        digests=ocp.args.JsonSave(
                            {"model": _digest(step, model), "optimiser": _digest(step, optimiser)}
                        ),
                    ),
                )
                self._manager.wait_until_finished()
            if saved:
                # Orbax synchronises only the arrays, neither its other files nor the rename.
                sync_tree(folder / str(step))
                sync_folder(folder)
                self._delete(self.steps()[self._keep :])
        except Exception as error:  # orbax has no specific error for a full disk
            _delete_unfinished(folder)  # it takes space that is scarce
            raise InputError(self._not_saved(step, reason_of_failure(error))) from error
        if not saved:
            raise InputError(self._not_saved(step, "orbax gave no reason"))

    def _delete(self, steps: list[int]) -> None:
        """Delete checkpoints, each completely or not at all.

        Orbax would delete one file after the other, so a killed process could leave a half.
        """
        for step in steps:
            place = Path(self._manager.directory) / str(step)
            shutil.rmtree(place.rename(place.with_name(f"{step}{_UNFINISHED}-deleted")))
        if steps:
            self._manager.reload()

    def set_progress(self, step: int, progress: Progress) -> None:
        """Replace the progress in the checkpoint of a step, if there is such a checkpoint.

        Only the file of the progress is replaced. If the whole checkpoint were written again, it
        would not exist for a moment.

        Raises:
          InputError: the disk is full or not writable. The checkpoint does not change.
        """
        if step not in self.steps():
            return
        file = Path(self._manager.directory) / str(step) / "progress" / "metadata"  # by JsonSave
        try:
            write_beside(
                file, lambda path: path.write_text(progress.model_dump_json(), encoding="utf-8")
            )
        except OSError as error:
            raise InputError(self._not_saved(step, str(error))) from error

    def _not_saved(self, step: int, why: str) -> str:
        return (
            f"{self._manager.directory}: step {step} could not be stored ({why}). Free some disk "
            "space, or check the write permissions. Then run the same command again: it resumes "
            f"from the last complete checkpoint ({max(self.steps(), default='none yet')})."
        )

    def restore_newest(
        self, model: Tree, optimiser: Tree
    ) -> tuple[int, Tree, Tree, Progress] | None:
        """Return the step, model, optimiser and progress of the newest readable checkpoint.

        Args:
          model, optimiser: trees of arrays or shapes, which give the expected shapes.

        Returns:
          None if there is no checkpoint.

        Raises:
          CheckpointError: there are checkpoints, but none of them can be read.
        """
        newest = self._newest(
            model=ocp.args.StandardRestore(_abstract(model)),
            optimiser=ocp.args.StandardRestore(_abstract(optimiser)),
            progress=ocp.args.JsonRestore(),
        )
        if newest is None:
            return None
        step, items = newest
        progress = Progress.of(items["progress"], f"{self._manager.directory}/{step}: progress")
        return step, items["model"], items["optimiser"], progress

    def restore_newest_model(self, model: Tree) -> tuple[int, Tree] | None:
        """Return the step and model of the newest readable checkpoint; see `restore_newest`."""
        newest = self._newest(model=ocp.args.StandardRestore(_abstract(model)))
        return newest and (newest[0], newest[1]["model"])

    def _newest(self, **items: Any) -> tuple[int, Any] | None:
        failures = []
        for step in self.steps():
            try:
                return step, self._restored(step, items)
            except Exception as error:  # orbax has no specific error for damaged files
                failures.append(f"step {step}: {_reason(error)}")
                logger.warning(
                    "%s: step %d cannot be read: %s", self._manager.directory, step, _reason(error)
                )
        if failures:
            raise CheckpointError(
                f"{self._manager.directory}: no checkpoint can be read. The files are damaged, or "
                "belong to another network. Restore them from a copy, or train again in another "
                "--workdir.\n" + "\n".join(failures)
            )
        return None

    def _restored(self, step: int, items: dict[str, Any]) -> Any:
        """Return items of a checkpoint.

        Raises:
          ValueError: the numbers are not those that were stored.
          Exception: orbax cannot read the files.
        """
        has_digests = self._has_digests(step)
        if has_digests:
            items = items | {"digests": ocp.args.JsonRestore()}
        with without_tracebacks():
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        for name in items.keys() & {"model", "optimiser"} if has_digests else ():
            if restored["digests"].get(name) != _digest(step, restored[name]):
                raise ValueError(f"the numbers of its {name} are not those that were stored")
        return restored

    def _has_digests(self, step: int) -> bool:
        """Return whether a checkpoint was stored with digests. The first ones had none."""
        # The list that orbax stores, and not the folder, which could be missing due to damage.
        stored = read_json(Path(self._manager.directory) / str(step) / "_CHECKPOINT_METADATA")
        return "digests" in stored["item_handlers"]


def _digest(step: int, tree: Tree) -> str:
    """Return a hash of the numbers of a tree, and of the step that they belong to."""
    digest = hashlib.sha256(str(step).encode())
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """Return an error as text. Those of orbax may have hundreds of lines."""
    return shortened(f"{type(error).__name__}: {error}")


def _delete_unfinished(folder: Path) -> None:
    """Delete checkpoints that are not complete, in a folder that no other process writes."""
    for path in folder.glob(f"*{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _abstract(tree: Tree) -> Tree:
    """Return the shapes, placed on this process's first device.

    With them, a checkpoint that was written with 4 devices can be loaded with 1.
    """
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def restore_for_inference(run: RunFolder, model_shapes: Tree) -> tuple[Tree, str, int]:
    """Return the model variables, the kind ('best' or 'last') and the step of a checkpoint.

    The best checkpoint is used. If there is none or it cannot be read, the last one is used.

    Raises:
      InputError: the run has no readable checkpoint.
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
        except CheckpointError as error:
            if kind == "last":
                raise
            logger.warning("%s\nThe last checkpoint is used instead.", error)
    raise InputError(
        f"{run.checkpoints}: contains no checkpoint; expected those of a trained run. Continue its "
        "training, or check the path."
    )
