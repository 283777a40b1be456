"""A job is one pass of one layer, whose forms are timed. An outcome is the result of one form."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from msseg_jax.network.convolution.form import Form, Inputs, LayerShape, Pass

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


def _shape(shape: tuple[int, ...], dtype: str) -> jax.Array:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[return-value]  # JAX takes both
