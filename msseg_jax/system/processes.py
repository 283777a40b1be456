"""Spread work over threads and processes."""

import _thread
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from tqdm import tqdm

from msseg_jax.system.errors import InputError
from msseg_jax.system.failures import continuing_after, reason_of
from msseg_jax.system.machine import memory_bytes, processors

T = TypeVar("T")
R = TypeVar("R")

PATIENT_BYTES = 1.3 * 2**30  # upper bound for the volumes of one patient, per thread
CLEAN_UP_S = 20.0  # time that a process has to clean up when it must end

# --------------------------------------------------------------------------------------- threads


def for_each(work: Callable[[T], R], patients: Sequence[T], description: str) -> list[R]:
    """Return `work(patient)` for each patient, in order.

    The function uses as many processors as the memory allows, and shows a progress bar on a
    terminal.
    """
    # Threads suffice, because long calls of NumPy, SciPy and zlib release Python's global lock.
    fit_in_memory = int(memory_bytes() / 2 / PATIENT_BYTES)
    with ThreadPoolExecutor(max(1, min(len(patients), processors(), fit_in_memory))) as pool:
        results = pool.map(work, patients)
        return list(tqdm(results, description, len(patients), disable=None, leave=False))


# ------------------------------------------------------------------------------------- processes


def do_each(
    work: Callable[[T], R],
    tasks: Mapping[str, T],
    jobs: int,
    failures: dict[str, str],
    *,
    isolated: bool = False,
    until_failure: bool = False,
) -> Iterator[tuple[str, R]]:
    """Do `work(task)` for each task, and yield the names and results of the tasks that succeed.

    Results come in the order in which the tasks end. With one job, the work is done in this
    process. With more jobs, each task runs in a separate process, so a crash affects no other
    task. After an error in the caller, or Ctrl-C, all processes are asked to clean up and end.

    Args:
      work: must be picklable if there are processes. So must the tasks and the results.
      tasks: {name: task}.
      jobs: number of tasks that run at the same time.
      failures: {name: what went wrong}. Tasks that fail are added to it.
      isolated: whether each task runs in a separate process even with one job.
      until_failure: whether to stop after the first task that fails.
    """
    apart = isolated or jobs > 1
    attempts = _in_processes(work, tasks, jobs) if apart else _here(work, tasks)
    for number, (name, result_of) in enumerate(attempts, start=1):
        with continuing_after(name, failures, f" ({number} of {len(tasks)})"):
            yield name, result_of()
        if until_failure and failures:
            return


def _here(work: Callable[[T], R], tasks: Mapping[str, T]) -> Iterator[tuple[str, Callable[[], R]]]:
    for name, task in tasks.items():
        yield name, partial(work, task)


def _in_processes(
    work: Callable[[T], R], tasks: Mapping[str, T], jobs: int
) -> Iterator[tuple[str, Callable[[], R]]]:
    """Yield the name of each task that ends, and a function that returns its result or raises."""
    # Not "fork": a fork of a process that has started threads (JAX, ITK) may hang.
    context = multiprocessing.get_context("spawn")
    waiting = deque(tasks.items())
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, task = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                # Pickled here, so that the new process can set up its signals before it unpickles
                # `work`, which imports modules (see `_do`).
                content = pickle.dumps((work, task))
                process = context.Process(target=_do, args=(sender, content), daemon=True)
                running[receiver] = (name, process)
                process.start()
                sender.close()  # so that the pipe closes when the process ends
            ended = set(wait(list(running)))
            for receiver in [one for one in running if one in ended]:
                name, process = running.pop(receiver)
                yield name, partial(_receive, receiver, process)
    finally:
        for receiver, (_, process) in running.items():
            receiver.close()
            if process.pid is not None:
                process.terminate()
        for _, process in running.values():
            if process.pid is not None:
                process.join(CLEAN_UP_S)
                process.kill()  # if it did not end when it was asked to


def _receive(receiver: Connection, process: SpawnProcess) -> Any:
    """Return the result that a process has sent, or raise the error that it has sent.

    Raises:
      InputError: the process ended before its work was done.
    """
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        raise InputError(
            f"its process ended with status {process.exitcode} before its work was done, perhaps "
            "because memory ran out. Run the same command again with a smaller --jobs."
        ) from None
    finally:
        process.join()
        receiver.close()
    if error is not None:
        raise error
    return result


def _do(sender: Connection, content: bytes) -> None:
    """Do the work of one task in its process, and send the result or the error."""
    # Ctrl-C reaches all processes of a terminal. The parent process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # The next line imports modules. Until it is done, SIGTERM ends this process at once, because
    # libraries would swallow an exception during an import. Nothing has to be cleaned up yet.
    work, task = pickle.loads(content)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):  # the parent process reports it
        try:
            sender.send((work(task), None))
        except Exception as error:  # any error: the parent process raises it
            sender.send((None, _as_sent(error)))


def _as_sent(error: Exception) -> Exception:
    """Return the error, or an InputError with the same message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # any error: pickling runs code of the error's class
        return InputError(reason_of(error))
    return error


def _end_with_the_parent() -> None:
    """End this process when its parent process has been killed and cannot end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _thread.interrupt_main(signal.SIGTERM)
    time.sleep(CLEAN_UP_S)
    os._exit(1)
