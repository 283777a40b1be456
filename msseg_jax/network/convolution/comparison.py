"""Run and time the forms of one job on this device, and check them against the plain form."""

import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import jax
import jax.numpy as jnp

from msseg_jax.network.convolution.form import Form, Inputs
from msseg_jax.network.convolution.job import Job, Outcome, Run
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.system.failures import is_out_of_memory

# Largest difference from the plain form, relative to the norm of all numbers, and of one number
# relative to the largest. TF32 rounds each factor by at most 2^-11, bfloat16 the result by 2^-9.
TOLERANCES = {"float32": (2e-3, 2e-2), "bfloat16": (1e-2, 5e-2)}
SAMPLES = 5  # the time of a form is the shortest
SAMPLE_S, MOST_CALLS = 2e-3, 4  # a sample has several calls if a call is shorter than SAMPLE_S
HOPELESS = 2  # a form that takes this many times as long as the best so far is not timed further
# A form may need so much more memory than the plain one, as a share of the card's memory. A step
# needs the memory of one form at a time, so its peak rises by at most this.
MOST_EXTRA_MEMORY = 0.1


class DeviceLost(Exception):
    """After an error of a form, the device computes nothing any more in this process."""


class Material(NamedTuple):
    """The arguments for the forms of a job, and memory to fill with NaN before each run."""

    # Returns random arguments. Zeros could hide mistakes, and can be faster than other numbers.
    draw: Callable[[], tuple[Inputs, ...]]
    # Fills memory with NaN that is then freed, in case a form does not write all its results.
    poison: Callable[[], Inputs]


def compile_material(job: Job) -> Material:
    """Compile the functions that make the arguments of a job's forms, and that fill memory."""
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


class Comparison:
    """The forms of one job that were tried so far. The first one is the plain form."""

    def __init__(
        self,
        job: Job,
        material: Future[Material],
        card_bytes: float,
        clock: Callable[[], float],
    ):
        self.outcomes: list[Outcome] = []
        self.fastest: float | None = None  # shortest time so far
        self._dtype = job.layer.dtype
        self._material = material
        self._clock = clock
        self._most_extra_bytes = MOST_EXTRA_MEMORY * card_bytes
        self._plain_bytes = math.inf
        self._arguments: tuple[Inputs, ...] = ()
        self._expected: Inputs = ()

    def drop(self, form: Form, error: Exception) -> None:
        """Note that a form raised an error, unless the reason was that memory ran out."""
        if not is_out_of_memory(error):
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            self.outcomes.append(Outcome(form.name, None, reason))
        check_device()

    def add(self, form: Form, run: Run) -> None:
        """Run a form and time it."""
        try:
            seconds, problem = self._try(form, run)
        except Exception as error:  # devices raise errors of many types
            self.drop(form, error)
            return
        self.outcomes.append(Outcome(form.name, seconds, problem))
        if seconds is not None:
            self.fastest = min(seconds, self.fastest or seconds)

    def _try(self, form: Form, run: Run) -> tuple[float | None, str]:
        """Return the seconds of a call, or None and why the form cannot be used."""
        needed = temporary_bytes(run)
        if form is PLAIN:
            self._plain_bytes = needed
        elif (extra := needed - self._plain_bytes) > self._most_extra_bytes:
            return None, f"it needs {extra / 2**30:.1f} GiB more than the plain form"
        draw, poison = self._material.result()
        self._arguments = self._arguments or draw()
        with contextlib.suppress(Exception):  # no memory left: the form may need less
            jax.block_until_ready(poison())
        found = jax.block_until_ready(run(*self._arguments))
        self._expected = self._expected or found
        problem = difference(found, self._expected, self._dtype)
        if problem:
            return None, problem
        return _seconds(run, self._arguments, self.fastest or math.inf, self._clock), ""


def temporary_bytes(run: Run) -> int:
    """Return the memory that a compiled program needs besides its arguments and results.

    Not every backend and version tells. Then this is 0, so that the forms can be timed anyway.
    """
    try:
        return run.memory_analysis().temp_size_in_bytes  # type: ignore[attr-defined]  # of JAX
    except Exception:  # backends raise errors of many types if they do not know it
        return 0


def check_device() -> None:
    """Raise DeviceLost if the device does not compute any more."""
    try:
        jax.block_until_ready(jnp.arange(3.0) + 1)
    except Exception as error:  # whatever it is, nothing more can be computed
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
