"""Work spread over threads and processes."""

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

PATIENT_BYTES = 1.3 * 2**30  # at most, for the volumes of the patient that a thread works on
CLEAN_UP_S = 20.0  # that a process gets to end after the one that started it was killed

# --------------------------------------------------------------------------------------- threads


def for_each(work: Callable[[T], R], patients: Sequence[T], description: str) -> list[R]:
    """Return `work(patient)` of each, in order. Use all processors; show a bar on a terminal."""
    # Threads are enough: the long calls of NumPy, SciPy and zlib release Python's lock.
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
    """Do `work(task)` for each task, and yield the name and the result of those that succeed.

    They come in the order in which they end. With one job the work is done in this process. With
    more, each task has a process of its own, so that a crash costs no other task. After an error
    in the caller, or Ctrl-C, all processes are asked to end, and clean up.

    Args:
      work: Can be pickled, as tasks and results can, if there are processes.
      tasks: by name.
      jobs: at the same time.
      failures: {name: what went wrong}, to which this adds.
      isolated: Each task has a process of its own, even with one job.
      until_failure: Stop after the first task that fails.
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
    """Yield the name of each task that has ended, and a function that returns or raises."""
    # "spawn": a fork of a process that has started threads (JAX, ITK) may hang.
    context = multiprocessing.get_context("spawn")
    waiting = deque(tasks.items())
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, task = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                # Pickled here, so that the process imports what `work` needs when it is ready.
                content = pickle.dumps((work, task))
                process = context.Process(target=_do, args=(sender, content), daemon=True)
                running[receiver] = (name, process)
                process.start()
                sender.close()  # so that the end of the process is the end of the pipe
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
                process.kill()  # one that has not reacted


def _receive(receiver: Connection, process: SpawnProcess) -> Any:
    """Return what a process has sent, or raise the error that it has sent.

    Raises:
      InputError: The process ended before its work did.
    """
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        raise InputError(
            f"its process ended with status {process.exitcode} before its work was done, perhaps "
            "because memory ran out; run the same command again, with a smaller --jobs"
        ) from None
    finally:
        process.join()
        receiver.close()
    if error is not None:
        raise error
    return result


def _do(sender: Connection, content: bytes) -> None:
    """Be a process: do the work of one task, and send what it returns or raises."""
    # Ctrl-C reaches all processes of a terminal; the one that started this one handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # Until here SIGTERM ends this process at once, also within imports, where libraries would
    # swallow an exception. Nothing has to be cleaned up yet.
    work, task = pickle.loads(content)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):  # the one that started this one reports it
        try:
            sender.send((work(task), None))
        except Exception as error:  # whatever it is, it is raised where the work was asked for
            sender.send((None, _as_sent(error)))


def _as_sent(error: Exception) -> Exception:
    """Return the error, or one with the same message where it does not survive pickling."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling runs code of the error's class
        return InputError(reason_of(error))
    return error


def _end_with_the_parent() -> None:
    """End this process when the one that started it was killed, as that one cannot do it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _thread.interrupt_main(signal.SIGTERM)
    time.sleep(CLEAN_UP_S)
    os._exit(1)
