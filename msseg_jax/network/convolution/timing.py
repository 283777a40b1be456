"""Time the forms of one pass of one layer on this device, and check them against the plain form."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from msseg_jax.network.convolution.form import Form, Inputs, LayerShape, Pass
from msseg_jax.network.convolution.plain import PLAIN

# Largest difference from the plain form, relative to the norm of all numbers, and of one number
# relative to the largest. TF32 rounds each factor by at most 2^-11, bfloat16 the result by 2^-9.
TOLERANCES = {"float32": (2e-3, 2e-2), "bfloat16": (1e-2, 5e-2)}
SAMPLES = 5  # the time of a form is the shortest
SAMPLE_S, MOST_CALLS = 2e-3, 4  # a sample has several calls if a call is shorter than SAMPLE_S
HOPELESS = 2  # a form that takes this many times as long as the best so far is not timed further

Run = Callable[..., Inputs]  # takes the arguments of a pass, and returns its results


class Job(NamedTuple):
    """A pass of a layer."""

    layer: LayerShape
    which: Pass

    def __str__(self) -> str:
        return f"{self.layer} {self.which}"

    @property
    def arguments(self) -> tuple[Inputs, ...]:
        """The shapes of the arguments: each is a tuple of arrays."""
        layer = self.layer
        volumes = (layer.batch, *layer.sides)
        inputs = tuple(_shape((*volumes, c), layer.dtype) for c in layer.channels)
        kernel = (_shape(layer.kernel_shape, layer.dtype),)
        dy = (_shape((*volumes, layer.features), layer.dtype),)
        return {
            "forward": (inputs, kernel),
            "input gradient": (dy, kernel),
            "kernel gradient": (inputs, dy),
        }[self.which]

    @property
    def size(self) -> int:
        """Numbers read and written, as a measure of the work. Jobs are sorted by it."""
        voxels = self.layer.batch * math.prod(self.layer.sides)
        return voxels * (sum(self.layer.channels) + self.layer.features)

    def run_by(self, form: Form) -> Run:
        """Return the function that computes this pass in a form."""
        layer = self.layer
        runs: dict[Pass, Run] = {
            "forward": lambda inputs, kernel: (form.forward(inputs, kernel[0]),),
            "input gradient": lambda dy, kernel: form.input_gradient(
                dy[0], kernel[0], layer.channels
            ),
            "kernel gradient": lambda inputs, dy: (
                form.kernel_gradient(inputs, dy[0], layer.kernel_size),
            ),
        }
        return runs[self.which]


class Outcome(NamedTuple):
    """The result of timing a form."""

    form: str
    seconds: float | None  # of one call; None if it cannot be used
    reason: str = ""  # why it cannot be used


class Event(NamedTuple):
    """A step of testing a form, before or after it. A compiler or a kernel may crash in between."""

    job: Job
    form: str
    what: Literal["compiling", "compiled", "running", "ran"]


class DeviceLost(Exception):
    """After an error of a form, the device computes nothing any more in this process."""


def compile_pass(form: Form, job: Job) -> Run:
    """Compile a pass of a layer in a form, for this device."""
    return jax.jit(job.run_by(form)).lower(*job.arguments).compile()


def time_forms(
    jobs: Sequence[Job],
    forms: Callable[[Job], Sequence[Form]],
    budget_s: float,
    *,
    threads: int = 1,
    clock: Callable[[], float] = time.monotonic,
    compile_form: Callable[[Form, Job], Run] = compile_pass,
    announce: Callable[[Event], None] = lambda event: None,
) -> Iterator[tuple[Job, list[Outcome]]]:
    """Yield the outcomes of each job, with the plain form first, until the time is used up.

    The forms are compiled in threads, and run one after the other. A form that raises any error or
    disagrees with the plain form has no time.

    Args:
      forms: returns the forms to compare with the plain one.
      budget_s: no new form is started after so many seconds. A job that is not complete by then is
        left out.
      announce: called before and after a form is compiled, in the thread that compiles it, and
        before and after it runs.

    Raises:
      DeviceLost: the form that runs has made the device unusable.
    """
    deadline = clock() + budget_s

    def prepare(form: Form, job: Job) -> Run:
        announce(Event(job, form.name, "compiling"))
        try:
            return compile_form(form, job)
        finally:
            announce(Event(job, form.name, "compiled"))

    pool = ThreadPoolExecutor(threads)
    try:
        compiling = [
            (
                job,
                pool.submit(_compile_arguments, job),
                [(form, pool.submit(prepare, form, job)) for form in (PLAIN, *forms(job))],
            )
            for job in jobs
        ]
        for job, material, forms_of_job in compiling:
            outcomes = _time_job(job, material, forms_of_job, deadline, clock, announce)
            if outcomes is None:
                return
            yield job, outcomes
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _time_job(
    job: Job,
    material: "Future[Material]",
    forms: Sequence[tuple[Form, "Future[Run]"]],
    deadline: float,
    clock: Callable[[], float],
    announce: Callable[[Event], None],
) -> list[Outcome] | None:
    """Return the outcomes of one job; None if the time is used up."""
    arguments = expected = None
    outcomes: list[Outcome] = []
    for form, compiling in forms:
        left_s = deadline - clock()
        if left_s <= 0:
            return None
        fastest = min((o.seconds for o in outcomes if o.seconds is not None), default=math.inf)
        announced = False
        try:
            run = compiling.result(timeout=left_s)
            draw, poison = material.result(timeout=left_s)
            if arguments is None:
                arguments = draw()
            announce(Event(job, form.name, "running"))
            announced = True
            with contextlib.suppress(Exception):  # no memory left: the form may need less
                jax.block_until_ready(poison())
            found = jax.block_until_ready(run(*arguments))
            if expected is None:
                expected = found
            problem = difference(found, expected, job.layer.dtype)
            seconds = None if problem else _seconds(run, arguments, fastest, clock)
            outcomes.append(Outcome(form.name, seconds, problem))
        except TooLate:
            return None
        except Exception as error:  # compilers and devices raise errors of many types
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            outcomes.append(Outcome(form.name, None, reason))
            _check_device()
        if announced:
            announce(Event(job, form.name, "ran"))
        if form is PLAIN and outcomes[0].seconds is None:
            return outcomes  # there is nothing to compare with
    return outcomes


def _check_device() -> None:
    """Raise DeviceLost if the device does not compute any more."""
    try:
        jax.block_until_ready(jnp.arange(3.0) + 1)
    except Exception as error:  # of any type
        raise DeviceLost from error


def _seconds(
    run: Run, arguments: Sequence[Inputs], fastest: float, clock: Callable[[], float]
) -> float:
    """Return the shortest time of a call. The function has already run once.

    The median would be less robust: other forms are compiled meanwhile, and XLA lets a call wait
    while it tries algorithms for them.
    """
    samples: list[float] = []
    calls = 1
    while len(samples) < SAMPLES:
        start = clock()
        results = [run(*arguments) for _ in range(calls)]
        jax.block_until_ready(results)
        samples.append((clock() - start) / calls)
        if len(samples) > 1 and min(samples) > HOPELESS * fastest:
            break
        calls = max(1, min(MOST_CALLS, int(SAMPLE_S / max(samples[-1], 1e-9))))
    return min(samples)


def difference(found: Inputs, expected: Inputs, dtype: str) -> str:
    """Return how results differ from the expected ones; an empty text if they agree."""
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return f"result {number} is {one.dtype}{one.shape}, not {other.dtype}{other.shape}"
        errors = [float(error) for error in _errors(one, other)]
        limits = TOLERANCES[dtype]
        # Written so that NaN is a difference.
        if not all(error <= limit for error, limit in zip(errors, limits, strict=True)):
            return (
                f"result {number} differs by {errors[0]:.1e} of its norm, {errors[1]:.1e} at most"
            )
    return ""


@jax.jit
def _errors(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    one, other = one.astype(jnp.float32), other.astype(jnp.float32)
    wrong = jnp.abs(one - other)
    norm, most = jnp.sqrt(jnp.sum(other * other)), jnp.max(jnp.abs(other))
    return jnp.sqrt(jnp.sum(wrong * wrong)) / norm, jnp.max(wrong) / most


def _shape(shape: tuple[int, ...], dtype: str) -> jax.Array:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[return-value]  # JAX takes both


class Material(NamedTuple):
    """The arguments for the forms of a job, and memory to fill with NaN before each run."""

    # Returns random arguments. Zeros could hide mistakes, and can be faster than other numbers.
    draw: Callable[[], tuple[Inputs, ...]]
    # Fills memory with NaN that is then freed, in case a form does not write all its results.
    poison: Callable[[], Inputs]


def _compile_arguments(job: Job) -> Material:
    leaves, tree = jax.tree.flatten(job.arguments)

    def draw() -> tuple[Inputs, ...]:
        key = jax.random.key(0, impl="rbg")  # the fastest one to compile
        arrays = [
            jax.random.uniform(jax.random.fold_in(key, k), leaf.shape, jnp.float32, -1, 1)
            for k, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(tree, [a.astype(job.layer.dtype) for a in arrays])

    results = jax.eval_shape(job.run_by(PLAIN), *job.arguments)

    def poison() -> Inputs:
        return tuple(jnp.full(r.shape, jnp.nan, r.dtype) for r in results)

    return Material(jax.jit(draw).lower().compile(), jax.jit(poison).lower().compile())
