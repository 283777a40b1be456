"""Run several tasks of the preparation at the same time, each in one thread.

ITK splits sums between its threads. The last digits of a sum then depend on the number of threads,
and even on the order in which they finish. Such differences remain after a registration, and bias
correction can amplify them to some per cent. Therefore each ITK filter uses one thread only, and
results are bit-identical for any number of processors.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import SimpleITK as sitk

from msseg_jax.system.machine import processors

sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
_threads = processors()


def use_threads(threads: int) -> None:
    """Set the number of threads that this process uses. The default is one per processor."""
    global _threads
    _threads = threads


def at_once(*tasks: Callable) -> list:
    """Run tasks at the same time, and return their results in the same order.

    Threads are enough for this, because ITK releases Python's global interpreter lock.

    Raises:
      Exception: the exception of the first task that fails.
    """
    with ThreadPoolExecutor(_threads) as pool:
        return list(pool.map(lambda task: task(), tasks))
