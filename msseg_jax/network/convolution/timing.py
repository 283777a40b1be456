"""Compile the forms of many jobs in threads, and time them one after the other."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Literal, NamedTuple

import jax

from msseg_jax.network.convolution.comparison import Comparison, check_device, compile_material
from msseg_jax.network.convolution.form import Form
from msseg_jax.network.convolution.job import Job, Outcome, Run
from msseg_jax.network.convolution.plain import PLAIN

COMPILE_S = 30.0  # a form that is compiled for longer is dropped
POLL_S = 0.05


class Event(NamedTuple):
    """A step of testing a form, before or after it. A compiler or a kernel may crash in between."""

    job: Job
    form: str
    what: Literal["compiling", "compiled", "running", "ran"]


class TooLate(Exception):
    """The time for all forms is used up."""


def compile_pass(form: Form, job: Job) -> Run:
    """Compile a pass of a layer in a form, for this device."""
    return jax.jit(job.run_by(form)).lower(*job.arguments).compile()


def time_forms(
    jobs: Sequence[Job],
    forms: Callable[[Job], Sequence[Form]],
    budget_s: float,
    *,
    threads: int = 1,
    card_bytes: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
    compile_form: Callable[[Form, Job], Run] = compile_pass,
    announce: Callable[[Event], None] = lambda event: None,
) -> Iterator[tuple[Job, list[Outcome]]]:
    """Yield the outcomes of each job, with the plain form first, until the time is used up.

    The forms are compiled in threads, and run one after the other. A form that raises any error,
    disagrees with the plain form, or needs too much time or memory has no time. A form that ran out
    of memory has no outcome, because another program may have used the memory.

    Args:
      forms: returns the forms to compare with the plain one.
      budget_s: no new form is started after so many seconds. The job of that moment is yielded
        with the outcomes it has.
      threads: with 1, no form is compiled while another runs.
      card_bytes: memory of the device.
      announce: called before and after a form is compiled, in the thread that compiles it, and
        before and after it runs.

    Raises:
      DeviceLost: a form has made the device unusable. The end of its step was not announced.
    """
    deadline = clock() + budget_s
    begun: dict[tuple[Job, Form], float] = {}  # when the compilation of a form began
    turns = threading.Lock() if threads == 1 else contextlib.nullcontext()

    def prepare(form: Form, job: Job) -> Run:
        with turns:
            begun[job, form] = clock()
            announce(Event(job, form.name, "compiling"))
            try:
                run = compile_form(form, job)
            except Exception:  # compilers raise errors of many types
                check_device()
                announce(Event(job, form.name, "compiled"))
                raise
            announce(Event(job, form.name, "compiled"))
            return run

    def finished(form: Form, job: Job, compiling: Future[Run]) -> Run:
        """Wait for a compilation. The plain form may take all the time, because all need it."""
        limit_s = math.inf if form is PLAIN else COMPILE_S
        while clock() < deadline:
            if compiling.done():
                return compiling.result()
            if clock() - begun.get((job, form), math.inf) > limit_s:
                raise TimeoutError(f"compiling it takes more than {limit_s:.0f} s")
            wait([compiling], POLL_S)
        raise TooLate

    pool = ThreadPoolExecutor(threads)
    try:
        compiling = [
            (
                job,
                pool.submit(compile_material, job),
                [(form, pool.submit(prepare, form, job)) for form in (PLAIN, *forms(job))],
            )
            for job in jobs
        ]
        for job, material, forms_of_job in compiling:
            comparison = Comparison(job, material, card_bytes, clock)
            for form, program in forms_of_job:
                try:
                    run = finished(form, job, program)
                except TooLate:
                    break
                except Exception as error:  # compilers raise errors of many types
                    comparison.drop(form, error)
                else:
                    with turns:
                        announce(Event(job, form.name, "running"))
                        comparison.add(form, run)
                        announce(Event(job, form.name, "ran"))
                if comparison.fastest is None:
                    break  # the plain form has no time, so there is nothing to compare with
            if comparison.outcomes:
                yield job, comparison.outcomes
            if clock() >= deadline:
                return
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
