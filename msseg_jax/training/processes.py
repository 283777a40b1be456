"""Devices and processes: the only file that says `pmap`, and what the devices share.

A training runs on all devices of one process, or of several, on one machine or many. Every process
runs the same program on its share of each batch; the devices meet inside the step. The first
process (`is_main`) alone writes what a run leaves.

`pmap` is in maintenance upstream (since JAX 0.8 a wrapper over `jit(shard_map)`); whatever takes
its place one day changes this file alone.
"""

import hashlib
import os
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED

JOIN_S = 120  # how long processes wait for each other to start
SILENCE_S = 20  # a process not heard of for this long is taken for dead, and the others end
WAIT_S = 24 * 3600  # how long they wait for one that lives: for phantoms, a cache, a report


OPEN_MPI_4 = "OMPI_MCA_orte_hnp_uri"  # says where the first process runs
OWN_GPUS = "JAX_LOCAL_DEVICE_IDS"  # which GPUs a process takes, whoever started it


class ProcessError(InputError):
    """Processes that cannot work together; the message names the flag."""


# ------------------------------------------------------------------------------------ processes


def join_processes(
    coordinator: str | None, process_id: int | None, num_processes: int | None
) -> None:
    """Become one of several processes; to be called before JAX is asked for a device.

    Without arguments what Slurm (`srun`) and Open MPI 4 (`mpirun`) tell their processes is taken;
    where they tell nothing, this process stays alone. Open MPI 5 tells all but the coordinator.
    What any of the three starts takes one GPU, by its number on its machine; with all three
    arguments a process takes every GPU it sees.

    Args:
      coordinator: 'host:port' of the first process, the same for all.
      process_id: of this one, from 0.

    Raises:
      ProcessError: the arguments are incomplete, or the coordinator cannot be reached.
    """
    own_gpu = None
    if process_id is None and num_processes is None and "OMPI_COMM_WORLD_SIZE" in os.environ:
        if coordinator is not None:
            process_id = int(os.environ["OMPI_COMM_WORLD_RANK"])
            num_processes = int(os.environ["OMPI_COMM_WORLD_SIZE"])
            if OWN_GPUS not in os.environ:  # as JAX itself has it under Open MPI 4 and Slurm
                own_gpu = [int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])]
        elif OPEN_MPI_4 not in os.environ and int(os.environ["OMPI_COMM_WORLD_SIZE"]) > 1:
            raise ProcessError(
                "Open MPI started several processes, and does not say where the first of them "
                "runs; wanted --coordinator=HOST:PORT, the same for all, with a free port there"
            )
    given = {"coordinator": coordinator, "process_id": process_id, "num_processes": num_processes}
    if all(value is None for value in given.values()):
        if _started_by_scheduler() > 1:
            _initialise("the processes that the scheduler started")
        return
    if missing := [f"--{name}" for name, value in given.items() if value is None]:
        raise ProcessError(
            f"{' and '.join(missing)} not given; wanted --coordinator=HOST:PORT, --process_id and "
            "--num_processes together, or none of them"
        )
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise ProcessError(
            f"--process_id is {process_id} and --num_processes is {num_processes}; wanted a number "
            "of processes from 1, and each process's own number from 0 to one less"
        )
    host, port = _host_and_port(coordinator)
    if num_processes == 1:
        return
    if process_id:
        _wait_for(host, port, coordinator)
    else:
        _require_free(port, coordinator)
        others = num_processes - 1
        more = f"{others} more process{'es' if others > 1 else ''}"
        print(f"waiting for {more} at {coordinator}", flush=True)
    _initialise(
        f"all of --num_processes={num_processes} at --coordinator={coordinator}",
        coordinator_address=coordinator, process_id=process_id, num_processes=num_processes,
        local_device_ids=own_gpu, cluster_detection_method="deactivate",
    )  # fmt: skip


def _host_and_port(coordinator: str) -> tuple[str, int]:
    """'[::1]:80' to ('::1', 80)."""
    host, _, port = coordinator.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if in_brackets else host
    whole = host and (in_brackets or ":" not in host)
    if not whole or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ProcessError(
            f"--coordinator is {coordinator!r}; wanted HOST:PORT of process 0, a port from 1 to "
            "65535, and an IPv6 address in brackets"
        )
    return host, int(port)


def _started_by_scheduler() -> int:
    """How many processes Slurm or Open MPI started of this program; 0 if neither did."""
    for started, count in (
        ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS"),
        (OPEN_MPI_4, "OMPI_COMM_WORLD_SIZE"),
    ):
        if started in os.environ:
            return int(os.environ.get(count, 1))
    return 0


def _require_free(port: int, coordinator: str) -> None:
    """JAX would say no more than that it failed to start a server."""
    both = socket.has_dualstack_ipv6()  # JAX listens at all addresses of the machine
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise ProcessError(
            f"--coordinator={coordinator}: port {port} cannot be opened on this machine, that of "
            f"process 0 ({error}); wanted a free one: choose another, the same for all processes"
        ) from error


def _wait_for(host: str, port: int, coordinator: str) -> None:
    """JAX, when nobody answers, ends the process with a stack trace; this gives a reason."""
    deadline = time.monotonic() + JOIN_S
    said = False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ProcessError(
                    f"--coordinator={coordinator} cannot be reached ({error}; tried for {JOIN_S} "
                    "s); wanted the address of process 0, running, with that port open to this "
                    "machine"
                ) from error
            if not said:
                said = True
                print(f"waiting for process 0 at {coordinator}, for {JOIN_S} s", flush=True)
            time.sleep(0.5)


def _initialise(who: str, **given) -> None:
    def give_up():
        print(f"{who} did not come together within {JOIN_S} s: were all started, with the same "
              "command (and the same --num_processes, where it is given), and can they reach each "
              "other?", file=sys.stderr, flush=True)  # fmt: skip
        os._exit(1)

    # Left to itself JAX would catch SIGTERM, and do nothing about it before the training begins.
    jax.config.update("jax_enable_preemption_service", False)
    # It would also end the process with a stack trace when its own time is up.
    patience = threading.Timer(JOIN_S, give_up)
    patience.daemon = True
    patience.start()
    # A process that ends early waits for the others no longer than for one that has died.
    join = partial(
        jax.distributed.initialize, initialization_timeout=2 * JOIN_S,
        heartbeat_timeout_seconds=SILENCE_S, shutdown_timeout_seconds=SILENCE_S, **given,
    )  # fmt: skip
    try:
        _heeding_signals(join)
    except jax.errors.JaxRuntimeError as error:
        raise ProcessError(
            f"{who} could not come together ({error}); wanted a port that process 0 can open and "
            "the others can reach: --coordinator=HOST:PORT, or for what a scheduler starts "
            "JAX_COORDINATOR_PORT, chooses another, the same for all"
        ) from error
    finally:
        patience.cancel()


def _heeding_signals(wait: Callable):
    """What `wait` returns, from a thread of its own.

    Python handles a signal in the main thread, when that comes back from the library that it waits
    in; while it waits for a thread it handles signals at once.
    """
    result = Future()

    def run():
        try:
            result.set_result(wait())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result()


def agree_on(command: str) -> None:
    """See that all processes do the same, before any waits for another; say how many they are.

    Raises:
      ProcessError: they differ in what `command` says, or in their number of devices.
    """
    devices = _heeding_signals(jax.devices)  # those of all, for which it waits
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"process {k} has {n}" for k, n in sorted(counts.items()))
        raise ProcessError(
            f"the processes do not have the same number of devices: {said}; wanted as many in "
            "each (CUDA_VISIBLE_DEVICES chooses GPUs)"
        )
    require_same("the command (mode, work folder, configuration)", command)
    if is_main() and len(counts) > 1:
        # Whoever has more GPUs than stand here has started too few processes.
        print(f"{len(counts)} processes train together on {len(devices)} devices "
              f"({devices[0].device_kind}): {counts[0]} in each", flush=True)  # fmt: skip


def is_main() -> bool:
    """Whether this process writes the run's folder."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Go on when every process has come here; `what` names the place."""
    everyone = set(range(jax.process_count()))  # named, so that no device is needed to meet
    _heeding_signals(
        partial(
            multihost.sync_global_processes, f"msseg_jax {what}", timeout=WAIT_S, processes=everyone
        )
    )


def main_first(what: str, work: Callable[[], None]) -> None:
    """Let the main process do `work`, and the others wait for it."""
    if is_main():
        work()
    wait_for_all(what)


def require_same(what: str, value: str) -> None:
    """Raises ProcessError unless `value` is the same in all processes; `what` names it."""
    if jax.process_count() == 1:
        return
    wait_for_all(what)  # some collectives give up on those who come late
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    different = [k for k, other in enumerate(digests) if (other != digests[0]).any()]
    if different:
        raise ProcessError(
            f"{what} of process {different[0]} is not that of process 0; wanted the same in all: "
            "start them with the same command, on the same data"
        )


def sum_over_processes(numbers: dict[str, int]) -> dict[str, int]:
    """The sum of each number over all processes."""
    if jax.process_count() == 1:
        return numbers
    wait_for_all("sum")  # as in `require_same`
    sums = multihost_utils.process_allgather(np.asarray(list(numbers.values()))).sum(axis=0)
    return dict(zip(numbers, sums.tolist(), strict=True))


def any_process(flag: bool) -> bool:
    """Whether any process has its flag set; the same in all."""
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
            f"perhaps because another process died: {said}\nif so, the same command goes on from "
            "the last checkpoint"
        )
    elif not isinstance(error, InputError | OSError | KeyboardInterrupt):
        traceback.print_exception(error)
    # JAX knows the process's number only when all have come together.
    process = f"process {os.getpid()} on {socket.gethostname()}"
    print(f"{process} ends: {said}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_STATUS if interrupted else 1)
