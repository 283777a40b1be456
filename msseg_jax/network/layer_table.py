"""Describe the layers of a network in a table with one line per convolution."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from msseg_jax.configuration.sections import NetworkSettings
from msseg_jax.network import native
from msseg_jax.network.model import Convolution, SiameseMPUNet, variable_shapes
from msseg_jax.system.text_table import text_table

Sides = tuple[int, ...]  # the shape of an array


class Layer(NamedTuple):
    """One convolution of a network."""

    path: tuple[str, ...]  # names of the modules that contain it, then its own name
    kernel: Sides
    input: Sides
    output: Sides


def layer_table(settings: NetworkSettings, patch_size: int) -> str:
    """Return a table of the layers in order of computation, with totals below.

    Only shapes are evaluated. No weights are created.

    Args:
      patch_size: side of the input, voxels.
    """
    model = SiameseMPUNet(settings)
    rows = _layers(model, patch_size)
    parameters = flatten_dict(variable_shapes(model)["params"])

    table = [("layer", "kernel", "input", "output", "parameters")]
    for path, kernel, before, after in rows:
        # The parameters of a unit's batch norm are counted with its convolution.
        owner = path[:-1] if path[-1] == "convolution" else path
        count = sum(leaf.size for name, leaf in parameters.items() if name[: len(owner)] == owner)
        table.append(
            (
                "/".join(owner),
                "x".join(map(str, kernel[:3])),
                "x".join(map(str, before[1:])),
                "x".join(map(str, after[1:])),
                f"{count:,}",
            )
        )
    total = sum(leaf.size for leaf in parameters.values())
    used, reason = native.state()
    return "\n".join(
        [
            text_table(table, "<<<<<"),
            "",
            f"convolution on a CPU: {'native' if used else 'plain JAX'}, {reason}",
            f"convolutions: {len(rows)}",
            f"parameters: {total}",
        ]
    )


def _layers(model: SiameseMPUNet, patch_size: int) -> list[Layer]:
    """Return the convolutions of a network in order of computation."""
    layers: list[Layer] = []

    def note(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output = next_call(*args, **kwargs)
        if isinstance(context.module, Convolution) and context.method_name == "__call__":
            kernel = context.module.variables["params"]["kernel"].shape
            whole_input = (*args[0][0].shape[:-1], kernel[3])  # args[0] holds its parts
            layers.append(Layer(context.module.path, kernel, whole_input, output.shape))
        return output

    side = patch_size
    visit = jax.ShapeDtypeStruct((1, side, side, side, 1), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
        )
    return layers
