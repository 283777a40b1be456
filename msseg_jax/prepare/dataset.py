"""Prepare all patients of a folder, several at the same time."""

from functools import partial
from pathlib import Path

from tqdm import tqdm

from msseg_jax.prepare.patient import Prepared, prepare_patient
from msseg_jax.prepare.request import Request
from msseg_jax.prepare.threads import use_threads
from msseg_jax.system.machine import processors
from msseg_jax.system.processes import do_each


def prepare_all(
    requests: dict[str, Request], output: Path, overwrite: bool, jobs: int
) -> tuple[dict[str, Prepared], dict[str, str]]:
    """Prepare each patient in the folder `output / patient`, and continue if one fails.

    Args:
      requests: {patient: request}.
      jobs: number of patients that are prepared at the same time. They share the processors. Each
        patient runs in a separate process, even with one job, because memory may run out for one.

    Returns:
      {patient: the prepared folder and its record} and {patient: error message}.
    """
    workers = min(jobs, len(requests))
    tasks = {name: (request, output / name) for name, request in requests.items()}
    work = partial(_prepare, overwrite, max(1, processors() // workers))
    prepared: dict[str, Prepared] = {}
    failures: dict[str, str] = {}
    with tqdm(total=len(tasks), desc="patients", disable=None) as bar:
        for name, one in do_each(work, tasks, workers, failures, isolated=True):
            prepared[name] = one
            done = len(prepared) + len(failures)
            said = "prepared before" if one.was_there else "prepared"
            tqdm.write(f"{name}: {said} ({done} of {len(tasks)})")
            bar.update(done - bar.n)
    return prepared, failures


def _prepare(overwrite: bool, threads: int, task: tuple[Request, Path]) -> Prepared:
    use_threads(threads)
    request, folder = task
    return prepare_patient(request, folder, overwrite)
