"""The layers of a network as a table: one line per convolution."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from msseg_jax.configuration.sections import NetworkSettings
from msseg_jax.network import native
from msseg_jax.network.model import Convolution, SiameseMPUNet

Sides = tuple[int, ...]  # the shape of an array


def layer_table(settings: NetworkSettings, patch_size: int) -> str:
    """Return the layers in the order of computation, and the totals; nothing is computed.

    Args:
      patch_size: side of the input, voxels.
    """
    model = SiameseMPUNet(settings)
    side = patch_size
    visit = jax.ShapeDtypeStruct((1, side, side, side, 1), jnp.float32)
    # Of each convolution its path, and the shapes of its kernel, input and output.
    rows: list[tuple[tuple[str, ...], Sides, Sides, Sides]] = []

    def note(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output = next_call(*args, **kwargs)
        if isinstance(context.module, Convolution) and context.method_name == "__call__":
            kernel = context.module.variables["params"]["kernel"].shape
            shape = (*args[0][0].shape[:-1], kernel[3])
            rows.append((context.module.path, kernel, shape, output.shape))
        return output

    with nn.intercept_methods(note):
        variables = jax.eval_shape(
            lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
        )
    parameters = flatten_dict(variables["params"])

    table = [("layer", "kernel", "input", "output", "parameters")]
    for path, kernel, before, after in rows:
        # A unit's batch norm belongs to its convolution's line.
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
    widths = [max(len(row[k]) for row in table) for k in range(5)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    total = sum(leaf.size for leaf in parameters.values())
    used, reason = native.state()
    return "\n".join(
        [
            *lines,
            "",
            f"convolution on a CPU: {'native' if used else 'plain JAX'}, {reason}",
            f"convolutions: {len(rows)}",
            f"parameters: {total}",
        ]
    )
