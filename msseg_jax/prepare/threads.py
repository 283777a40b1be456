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
MANY_VOXELS = 32_000_000  # of one image, 128 MB in float32; a 3D scan at 1 mm has 10 million


def use_threads(threads: int) -> None:
    """Set the number of threads that this process uses. The default is one per processor."""
    global _threads
    _threads = threads


def at_once(*tasks: Callable, voxels: int = 0) -> list:
    """Run tasks at the same time, and return their results in the same order.

    Threads are enough for this, because ITK releases Python's global interpreter lock.

    Args:
      tasks: functions without arguments.
      voxels: number of voxels of the images of each task. If they are MANY_VOXELS or more, the
        tasks run one after the other, because each of them needs several images of this size.

    Raises:
      Exception: the exception of the first task that fails.
    """
    with ThreadPoolExecutor(1 if voxels >= MANY_VOXELS else _threads) as pool:
        return list(pool.map(lambda task: task(), tasks))
