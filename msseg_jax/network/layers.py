"""Find the convolutions of a network, with the shapes of their inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msseg_jax.network.convolution.form import PASSES, LayerShape
from msseg_jax.network.convolution.job import Job
from msseg_jax.network.model import Convolution, SiameseMPUNet


class Layer(NamedTuple):
    """One convolution of a network."""

    path: tuple[str, ...]  # names of the modules that contain it, then its own name
    shape: LayerShape


def find_layers(model: SiameseMPUNet, batch: int, sides: tuple[int, int, int]) -> list[Layer]:
    """Return the convolutions of a network in order of computation, without computing them.

    Args:
      batch: pairs of patches on one device.
      sides: sides of a patch, voxels.
    """
    layers: list[Layer] = []

    def note(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if isinstance(module, Convolution) and context.method_name == "__call__":
            shape = LayerShape.of(args[0], module.features, module.kernel_size)
            layers.append(Layer(module.path, shape))
        return next_call(*args, **kwargs)

    visit = jax.ShapeDtypeStruct((batch, *sides, 1), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
        )
    return layers


def training_jobs(layers: list[Layer]) -> list[Job]:
    """Return all passes that a training step computes."""
    jobs = [Job(layer.shape, which) for layer in layers for which in PASSES]
    # The first layer reads the images. No gradient with respect to them is needed.
    unneeded = Job(layers[0].shape, "input gradient")
    elsewhere = any(layer.shape == layers[0].shape for layer in layers[1:])
    return [job for job in jobs if job != unneeded or elsewhere]


def forward_jobs(layers: list[Layer]) -> list[Job]:
    """Return the passes that a prediction computes."""
    return [Job(layer.shape, "forward") for layer in layers]
