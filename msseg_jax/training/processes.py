"""What the processes of one training agree on, and how they wait for each other.

A training runs on all devices of one process, or of several, on one machine or many. Every process
runs the same program on its share of each batch; the devices meet inside the step. Only the first
process (`is_main`) writes what a run leaves.
"""

import hashlib
import os
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED
from msseg_jax.training.joining import heeding_signals

WAIT_S = 24 * 3600  # how long they wait for one that lives: for phantoms, a cache, a report


def agree_on(command: str) -> None:
    """Check that all processes do the same, before any waits for another; print how many they are.

    Raises:
      InputError: they differ in what `command` says, or in their number of devices.
    """
    devices = heeding_signals(jax.devices)  # those of all, for which it waits
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"process {k} has {n}" for k, n in sorted(counts.items()))
        raise InputError(
            f"the processes do not have the same number of devices: {said}; expected as many in "
            "each (CUDA_VISIBLE_DEVICES chooses GPUs)"
        )
    require_same("the command (mode, work folder, configuration)", command)
    if is_main() and len(counts) > 1:
        # If you have more GPUs than this, you started too few processes.
        print(
            f"{len(counts)} processes train together on {len(devices)} devices "
            f"({devices[0].device_kind}): {counts[0]} in each", flush=True,
        )  # fmt: skip


def is_main() -> bool:
    """Return whether this process writes the run's folder."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Return when every process has come here; `what` names the place."""
    everyone = set(range(jax.process_count()))  # named, so that no device is needed to meet
    heeding_signals(
        partial(
            multihost.sync_global_processes, f"msseg_jax {what}", timeout=WAIT_S, processes=everyone
        )
    )


def main_first(what: str, work: Callable[[], object]) -> None:
    """Let the main process do `work`, while the others wait for it."""
    if is_main():
        work()
    wait_for_all(what)


def require_same(what: str, value: str) -> None:
    """Raise InputError unless `value` is the same in all processes; `what` names it."""
    if jax.process_count() == 1:
        return
    wait_for_all(what)  # some collectives give up on those who come late
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    different = [k for k, other in enumerate(digests) if (other != digests[0]).any()]
    if different:
        raise InputError(
            f"{what} of process {different[0]} is not that of process 0; expected the same in all: "
            "start them with the same command, on the same data"
        )


def sum_over_processes(numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of each number over all processes."""
    if jax.process_count() == 1:
        return dict(numbers)
    wait_for_all("sum")  # as in `require_same`
    sums = multihost_utils.process_allgather(np.asarray(list(numbers.values()))).sum(axis=0)
    return dict(zip(numbers, sums.tolist(), strict=True))


def any_process(flag: bool) -> bool:
    """Return whether any process has its flag set; the same in all."""
    return sum_over_processes({"flags": int(flag)})["flags"] > 0


def leave(error: BaseException) -> None:
    """End this process at once if it is one of several, after a line that says why.

    An orderly end would wait for the others, who wait for this one inside a step.
    """
    if not jax.distributed.is_initialized():
        return
    interrupted = isinstance(error, KeyboardInterrupt)
    said = INTERRUPTED if interrupted else str(error) or type(error).__name__
    if isinstance(error, jax.errors.JaxRuntimeError):
        said = (
            f"perhaps because another process died: {said}\nIf so, run the same command again to "
            "resume from the last checkpoint"
        )
    elif not isinstance(error, InputError | OSError | KeyboardInterrupt):
        traceback.print_exception(error)
    # JAX knows the process's number only when all have come together.
    process = f"process {os.getpid()} on {socket.gethostname()}"
    print(f"{process} ends: {said}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_STATUS if interrupted else 1)
