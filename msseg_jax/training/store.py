"""Store the checkpoints of a run: the last two and the best one."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

import jax.numpy as jnp

from msseg_jax.models.checkpoints import Checkpoints, Progress
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.training.processes import is_main
from msseg_jax.training.step import TrainState


class Store:
    """The checkpoints of one run. Only the main process writes them; all processes read."""

    def __init__(self, run: RunFolder):
        self._folder = run.checkpoints
        self._open = ExitStack()

    def __enter__(self) -> Self:
        # Keep the last two, so that the run can continue if the newest one is damaged.
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
        """Return the newest stored state and its progress. In a new run, return `state` itself."""
        newest = self._last.restore_newest(state.model_variables, state.opt_state)
        if newest is None:
            return state, Progress()
        step, model, opt_state, progress = newest
        return state.replace(step=jnp.int32(step), opt_state=opt_state, **model), progress

    def has(self, step: int) -> bool:
        """Return whether the state of a step is stored."""
        return step in self._last.steps()

    def save_last(self, state: TrainState, progress: Progress) -> None:
        """Store a state, so that the run can continue from it."""
        _save(self._last, state, progress)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Store a state as the best one, in place of the previous best."""
        _save(self._best, state, progress)

    def note(self, step: int, progress: Progress) -> None:
        """Update the progress that is stored with a step, if that step is stored."""
        if is_main():
            self._last.set_progress(step, progress)


def _save(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    if is_main():
        checkpoints.save(int(state.step), state.model_variables, state.opt_state, progress)
