"""Work spread over threads and processes."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from msseg_jax.system.errors import InputError
from msseg_jax.system.machine import memory_bytes, processors

PATIENT_BYTES = 1.3 * 2**30  # at most, for the volumes of the patient that a thread works on


class ProcessGone(InputError):
    """A process that did a part of the work ended before it."""


def for_each(work: Callable, patients: Sequence, description: str) -> list:
    """`work(patient)` of each, on all processors, in order, with a bar if someone is looking."""
    # Threads serve: what takes long in NumPy, SciPy and zlib leaves Python's lock alone.
    fit_in_memory = int(memory_bytes() / 2 / PATIENT_BYTES)
    with ThreadPoolExecutor(max(1, min(len(patients), processors(), fit_in_memory))) as pool:
        results = pool.map(work, patients)
        return list(tqdm(results, description, len(patients), disable=None, leave=False))


def in_processes(work: Callable, tasks: Sequence, jobs: int) -> Iterator:
    """`work(task)` of each, in so many processes, as they are finished; work and tasks pickle.

    With more than one job, what calls this must be below `if __name__ == "__main__":`, for the
    processes import the main module.

    Raises:
      ProcessGone: one of them crashed or was killed.
    """
    if jobs == 1:
        yield from map(work, tasks)
        return
    # "spawn": a fork of a process that has started threads (JAX, for one) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_end_with_the_parent) as pool:
        try:
            futures = [pool.submit(work, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ProcessGone(
                f"one of {jobs} processes ended before its work did, perhaps for want of memory; "
                "run the same again, with fewer at a time (--jobs)"
            ) from error
        finally:
            # After an error or Ctrl-C, nobody wants the rest.
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_the_parent() -> None:
    """A process that is killed cannot end those it has started, which would wait for ever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
