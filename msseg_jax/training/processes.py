"""Make the processes of one training agree, and let them wait for each other.

A training uses all devices of one or more processes, on one or more machines. Every process runs
the same program on its share of each batch. The devices communicate inside the step. Only the first
process (`is_main`) writes the run's folder.
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

from msseg_jax.system.backend import start_backend
from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED
from msseg_jax.training.joining import heeding_signals

WAIT_S = 24 * 3600  # longest wait for a live process that makes phantoms, a cache or a report


def agree_on(command: str) -> None:
    """Check that all processes have the same command and number of devices; print their number.

    Call this before any process waits for another.

    Raises:
      InputError: `command` or the number of devices differs between processes.
    """
    heeding_signals(start_backend)  # waits for all processes
    devices = jax.devices()  # of all processes
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"process {k} has {n}" for k, n in sorted(counts.items()))
        raise InputError(
            f"the processes do not have the same number of devices: {listed}. Give each process "
            "the same number (CUDA_VISIBLE_DEVICES selects GPUs)."
        )
    require_same("the command (mode, work folder, configuration)", command)
    if is_main() and len(counts) > 1:
        # A user who has more GPUs than this can see that too few processes were started.
        print(
            f"{len(counts)} processes train together on {len(devices)} devices "
            f"({devices[0].device_kind}): {counts[0]} in each", flush=True,
        )  # fmt: skip


def is_main() -> bool:
    """Return whether this process writes the run's folder."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Wait until every process has reached this call; `what` names it."""
    everyone = set(range(jax.process_count()))  # with this list, no device is needed
    heeding_signals(
        partial(
            multihost.sync_global_processes, f"msseg_jax {what}", timeout=WAIT_S, processes=everyone
        )
    )


def main_first(what: str, work: Callable[[], object]) -> None:
    """Run `work` in the main process, while the others wait for it."""
    if is_main():
        work()
    wait_for_all(what)


def require_same(what: str, value: str) -> None:
    """Raise InputError unless `value` is the same in all processes; `what` names it."""
    if jax.process_count() == 1:
        return
    wait_for_all(what)  # some collectives time out if a process is late
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    different = [k for k, other in enumerate(digests) if (other != digests[0]).any()]
    if different:
        raise InputError(
            f"{what} of process {different[0]} differs from that of process 0. Start all processes "
            "with the same command, on the same data."
        )


def sum_over_processes(numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of each number over all processes."""
    if jax.process_count() == 1:
        return dict(numbers)
    wait_for_all("sum")  # as in `require_same`
    sums = multihost_utils.process_allgather(np.asarray(list(numbers.values()))).sum(axis=0)
    return dict(zip(numbers, sums.tolist(), strict=True))


def text_of_main(what: str, text: str) -> str:
    """Return the text of the main process; `what` names it. All processes must call this."""
    if jax.process_count() == 1:
        return text
    wait_for_all(what)  # as in `require_same`; the main process may have worked for minutes
    content = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    # All processes must give an array of this length. Only that of the main process counts.
    content = np.resize(content, length)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(content))).decode()


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process. The result is the same in all processes."""
    return sum_over_processes({"flags": int(flag)})["flags"] > 0


def leave(error: BaseException) -> None:
    """Print the error and end this process immediately, if it is one of several.

    A normal exit would wait for the other processes, while these wait for this one inside a step.
    """
    if not jax.distributed.is_initialized():
        return
    interrupted = isinstance(error, KeyboardInterrupt)
    reason = INTERRUPTED if interrupted else str(error) or type(error).__name__
    if isinstance(error, jax.errors.JaxRuntimeError):
        reason = (
            f"perhaps because another process died: {reason}\nIf so, run the same command again "
            "to resume from the last checkpoint."
        )
    elif not isinstance(error, InputError | OSError | KeyboardInterrupt):
        traceback.print_exception(error)
    # JAX knows the rank of this process only after all have connected.
    process = f"process {os.getpid()} on {socket.gethostname()}"
    print(f"{process} ends: {reason}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_STATUS if interrupted else 1)
