"""Many patients, several at the same time, each in a process of its own."""

import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tqdm import tqdm

from msseg_jax.prepare.request import Request
from msseg_jax.system.errors import InputError
from msseg_jax.system.machine import processors


@dataclass(frozen=True)
class Outcome:
    """Of one patient: a record, or what went wrong."""

    patient: str
    record: dict | None
    was_there: bool = False
    failure: str = ""

    def __str__(self) -> str:
        if self.failure:
            return f"failed: {self.failure}"
        return "prepared before" if self.was_there else "prepared"


def prepare_all(
    requests: dict[str, Request], output: Path, overwrite: bool, jobs: int
) -> list[Outcome]:
    """Prepare each patient into `output / patient`, going on after one that fails.

    Args:
      requests: by patient.
      jobs: patients at the same time; they share the processors.

    Returns:
      What became of each, in the order of the requests.
    """
    workers = min(jobs, len(requests))
    threads = max(1, processors() // workers)
    outcomes = {}
    with ThreadPoolExecutor(workers) as pool:
        running = [
            pool.submit(prepare_alone, threads, name, request, output / name, overwrite)
            for name, request in requests.items()
        ]
        try:
            for done in tqdm(as_completed(running), "patients", len(running), disable=None):
                outcome = done.result()
                outcomes[outcome.patient] = outcome
                tqdm.write(f"{outcome.patient}: {outcome} ({len(outcomes)} of {len(running)})")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():  # which clear away what they have begun
                process.terminate()
            raise
    return [outcomes[name] for name in requests]


def prepare_alone(threads: int, name: str, *task) -> Outcome:
    """`prepare` in a process of its own, so that a crash on one patient takes no other along."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, threads, name, *task), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        failure = (
            f"its process ended with status {process.exitcode}, perhaps because memory ran out; "
            "the same command goes on: take fewer --jobs"
        )
        return Outcome(name, None, failure=failure)
    finally:
        process.join()


def _work(sender: Connection, threads: int, *task) -> None:
    from msseg_jax.prepare.threads import use_threads

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    use_threads(threads)
    with contextlib.suppress(KeyboardInterrupt):  # the one that started this process says so
        sender.send(prepare(*task))


def prepare(name: str, request: Request, folder: Path, overwrite: bool) -> Outcome:
    """One of many."""
    from msseg_jax.prepare.patient import prepare_patient

    try:
        prepared = prepare_patient(request, folder, overwrite)
    except Exception as error:  # whatever it is, the other patients are wanted
        known = isinstance(error, InputError)
        failure = str(error) if known else f"{type(error).__name__}: {error}"
        return Outcome(name, None, failure=failure)
    return Outcome(name, prepared.record, prepared.was_there)
