"""How the processes of one training find each other."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import jax

from msseg_jax.system.errors import InputError

JOIN_S = 120  # how long processes wait for each other to start
SILENCE_S = 20  # a process not heard of for this long is taken for dead, and the others end

# Where a launcher says how many processes it started, and the number of this one.
LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
}

Result = TypeVar("Result")


def join_processes(
    coordinator: str | None, process_id: int | None, num_processes: int | None
) -> None:
    """Become one of several processes, before JAX is asked for a device.

    Without arguments this process trains by itself. Each process takes every GPU that it sees.

    Args:
      coordinator: 'host:port' of the first process, the same for all.
      process_id: number of this process, from 0.

    Raises:
      InputError: the arguments are incomplete, or the coordinator cannot be reached.
    """
    if coordinator is None and process_id is None and num_processes is None:
        _check_not_launched()
        return
    if coordinator is None or process_id is None or num_processes is None:
        given = {"coordinator": coordinator, "process_id": process_id,
                 "num_processes": num_processes}  # fmt: skip
        missing = [f"--{name}" for name, value in given.items() if value is None]
        raise InputError(
            f"{' and '.join(missing)} not given; expected --coordinator=HOST:PORT, --process_id "
            "and --num_processes together, or none of them"
        )
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id is {process_id} and --num_processes is {num_processes}; expected 1 or "
            "more processes, numbered from 0"
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
    _initialise(coordinator, process_id, num_processes)


def _check_not_launched() -> None:
    """Raise InputError if a launcher started several processes that would train the same run."""
    for count, number in LAUNCHERS.items():
        processes = os.environ.get(count, "1")
        if processes.isdecimal() and int(processes) > 1:
            raise InputError(
                f"{processes} processes were started together ({count}), and this one does not "
                "know the others; expected --coordinator=HOST:PORT of the first, "
                f"--num_processes=${count} and --process_id=${number}"
            )


def _host_and_port(coordinator: str) -> tuple[str, int]:
    """Return ('::1', 80) for '[::1]:80'."""
    host, _, port = coordinator.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if in_brackets else host
    whole = host and (in_brackets or ":" not in host)
    if not whole or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InputError(
            f"--coordinator is {coordinator!r}; expected HOST:PORT of process 0, a port from 1 to "
            "65535, and an IPv6 address in brackets"
        )
    return host, int(port)


def _require_free(port: int, coordinator: str) -> None:
    """Raise InputError if the port is taken. JAX only says that it failed to start a server."""
    both = socket.has_dualstack_ipv6()  # JAX listens at all addresses of the machine
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise InputError(
            f"--coordinator={coordinator}: port {port} cannot be opened on the machine of process "
            f"0 ({error}); expected a free port: choose another, the same for all processes"
        ) from error


def _wait_for(host: str, port: int, coordinator: str) -> None:
    """Wait until process 0 answers. If nobody answers, JAX ends with a stack trace instead."""
    deadline = time.monotonic() + JOIN_S
    said = False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"--coordinator={coordinator} cannot be reached ({error}; tried for {JOIN_S} "
                    "s); expected the address of process 0, which runs, with that port open to "
                    "this machine"
                ) from error
            if not said:
                said = True
                print(f"waiting for process 0 at {coordinator}, for {JOIN_S} s", flush=True)
            time.sleep(0.5)


def _initialise(coordinator: str, process_id: int, num_processes: int) -> None:
    """Start JAX's own connection between the processes."""
    who = f"all of --num_processes={num_processes} at --coordinator={coordinator}"

    def give_up() -> None:
        print(
            f"{who} did not come together within {JOIN_S} s: were all started, with the same "
            "command and the same --num_processes, and can they reach each other?",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(1)

    # By default JAX catches SIGTERM, and does nothing about it before the training begins.
    jax.config.update("jax_enable_preemption_service", False)
    # By default it also ends the process with a stack trace when its own time is up.
    patience = threading.Timer(JOIN_S, give_up)
    patience.daemon = True
    patience.start()
    # A process that ends early waits for the others no longer than for one that has died.
    join = partial(
        jax.distributed.initialize, coordinator_address=coordinator, process_id=process_id,
        num_processes=num_processes, cluster_detection_method="deactivate",
        initialization_timeout=2 * JOIN_S, heartbeat_timeout_seconds=SILENCE_S,
        shutdown_timeout_seconds=SILENCE_S,
    )  # fmt: skip
    try:
        heeding_signals(join)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"{who} could not come together ({error}); expected a port that process 0 can open and "
            "the others can reach: choose another for --coordinator, the same for all"
        ) from error
    finally:
        patience.cancel()


def heeding_signals(wait: Callable[[], Result]) -> Result:
    """Return what `wait` returns, from a thread of its own.

    Python handles a signal in the main thread, when that comes back from the library in which it
    waits. While it waits for a thread, it handles signals at once.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(wait())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result()
