"""The states that a run stores: the last two checkpoints and the best one."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

import jax.numpy as jnp

from msseg_jax.models.checkpoints import Checkpoints, Progress
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.training.processes import is_main
from msseg_jax.training.step import TrainState


class Store:
    """The checkpoints of one run. Only the main process writes; all read."""

    def __init__(self, run: RunFolder):
        self._folder = run.checkpoints
        self._open = ExitStack()

    def __enter__(self) -> Self:
        # Two of the last, so that one damaged by the machine leaves another to continue from.
        self._last = self._open.enter_context(Checkpoints(self._folder / "last", keep=2))
        self._best = self._open.enter_context(Checkpoints(self._folder / "best", keep=1))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def restore(self, state: TrainState) -> tuple[TrainState, Progress]:
        """Return the newest state and its progress; `state` itself in a new run."""
        newest = self._last.restore_newest(state.model_variables, state.opt_state)
        if newest is None:
            return state, Progress()
        step, model, opt_state, progress = newest
        return state.replace(step=jnp.int32(step), opt_state=opt_state, **model), progress

    def has(self, step: int) -> bool:
        """Return whether the state of a step is stored."""
        return step in self._last.steps()

    def save_last(self, state: TrainState, progress: Progress) -> None:
        """Store a state from which the run can be continued."""
        _save(self._last, state, progress)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Store a state in place of the best so far."""
        _save(self._best, state, progress)

    def note(self, step: int, progress: Progress) -> None:
        """Change the progress that is stored with a step, if that step is stored."""
        if is_main():
            self._last.set_progress(step, progress)


def _save(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    if is_main():
        checkpoints.save(int(state.step), state.model_variables, state.opt_state, progress)
