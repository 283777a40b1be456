"""The processors that preparing takes: several pieces of work at once, each in a thread of its own.

ITK divides a sum among its threads, and its last digits are then those of that division, or even of
which thread came first. A registration hands such differences on, and the bias field may make per
cent of them. So each of ITK's filters gets one thread, and what comes out is the same, to the bit,
whatever the number of processors.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import SimpleITK as sitk

from msseg_jax.system.machine import processors

sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
_threads = processors()


def use_threads(threads: int) -> None:
    """Use so many processors from here on, in this process; all, if nothing is said."""
    global _threads
    _threads = threads


def at_once(*tasks: Callable) -> list:
    """What each of the tasks returns, in their order. ITK leaves Python's lock alone.

    Raises:
      Whatever the first of them that fails raises.
    """
    with ThreadPoolExecutor(_threads) as pool:
        return list(pool.map(lambda task: task(), tasks))
