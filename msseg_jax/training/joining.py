"""Connect the processes of one training to each other."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import jax

from msseg_jax.system.errors import InputError

JOIN_S = 120  # longest time that processes wait for each other at the start
WAKE_S = 0.5  # longest time until a signal is handled while this process waits for others
SILENCE_S = 20  # a process that sends no heartbeat for this long counts as dead; the others end

# Environment variables in which a launcher gives the number of processes and this one's rank.
LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
}

Result = TypeVar("Result")


def join_processes(
    coordinator: str | None, process_id: int | None, num_processes: int | None
) -> None:
    """Connect this process to the other processes of the training.

    Call this before JAX is asked for a device. Without arguments, this process trains by itself.
    Each process uses all GPUs that it can see.

    Args:
      coordinator: 'host:port' of the first process, the same for all.
      process_id: rank of this process, from 0.
      num_processes: number of processes.

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
            f"missing: {' and '.join(missing)}. Give --coordinator=HOST:PORT, --process_id and "
            "--num_processes together, or none of them."
        )
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id is {process_id} and --num_processes is {num_processes}. Give "
            "--num_processes as 1 or more, and --process_id from 0 to --num_processes minus 1."
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
    """Raise InputError if a launcher started several processes without connecting them."""
    for count, number in LAUNCHERS.items():
        processes = os.environ.get(count, "1")
        if processes.isdecimal() and int(processes) > 1:
            raise InputError(
                f"{processes} processes were started together ({count}), but they are not "
                "connected: each would train the whole run. Give --coordinator=HOST:PORT of the "
                f"first process, --num_processes=${count} and --process_id=${number}."
            )


def _host_and_port(coordinator: str) -> tuple[str, int]:
    """Split an address into host and port, for example '[::1]:80' into ('::1', 80)."""
    host, _, port = coordinator.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if in_brackets else host
    whole = host and (in_brackets or ":" not in host)
    if not whole or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InputError(
            f"--coordinator is {coordinator!r}. Give HOST:PORT of process 0, with a port from 1 to "
            "65535. Put an IPv6 address in brackets."
        )
    return host, int(port)


def _require_free(port: int, coordinator: str) -> None:
    """Raise InputError if the port is in use.

    Without this check, JAX would only report that it failed to start a server.
    """
    both = socket.has_dualstack_ipv6()  # JAX listens on all addresses of the machine
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise InputError(
            f"--coordinator={coordinator}: port {port} cannot be opened on the machine of process "
            f"0 ({error}). Choose a free port, and give the same one to all processes."
        ) from error


def _wait_for(host: str, port: int, coordinator: str) -> None:
    """Wait until process 0 accepts connections.

    Without this check, JAX would end with a stack trace if process 0 does not answer.

    Raises:
      InputError: process 0 does not answer within JOIN_S.
    """
    deadline = time.monotonic() + JOIN_S
    announced = False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"--coordinator={coordinator} cannot be reached ({error}; tried for {JOIN_S} "
                    "s). Check that it is the address of process 0, that process 0 is running, "
                    "and that this machine is allowed to connect to the port."
                ) from error
            if not announced:
                announced = True
                print(f"waiting up to {JOIN_S} s for process 0 at {coordinator}", flush=True)
            time.sleep(0.5)


def _initialise(coordinator: str, process_id: int, num_processes: int) -> None:
    """Start JAX's connection between the processes."""
    who = f"the processes (--num_processes={num_processes}, --coordinator={coordinator})"

    def give_up() -> None:
        print(
            f"{who} did not all connect within {JOIN_S} s. Check that all were started with the "
            "same command and the same --num_processes, and that they can reach each other.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(1)

    # By default JAX catches SIGTERM and ignores it until the training begins.
    jax.config.update("jax_enable_preemption_service", False)
    # At its own timeout JAX ends the process with a stack trace. End it earlier, with a message.
    timer = threading.Timer(JOIN_S, give_up)
    timer.daemon = True
    timer.start()
    # With this shutdown timeout, a process that ends early waits no longer than for a dead process.
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
            f"{who} could not connect to each other ({error}). Process 0 must be able to open the "
            "port, and the others to reach it. Choose another port for --coordinator, the same "
            "for all."
        ) from error
    finally:
        timer.cancel()


def heeding_signals(wait: Callable[[], Result]) -> Result:
    """Run `wait` in a thread, so that signals are handled meanwhile, and return its result.

    Python handles a signal in the main thread, between two Python instructions. If the main thread
    called a library that waits for other processes, a signal would be handled too late. So the main
    thread waits for the thread instead. It wakes up regularly, because a signal that arrives just
    before the main thread starts to wait does not interrupt that wait.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(wait())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not futures.wait([result], WAKE_S).done:
        pass
    return result.result()
