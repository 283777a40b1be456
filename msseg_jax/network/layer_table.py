"""Describe the layers of a network in a table with one line per convolution."""

from flax.traverse_util import flatten_dict

from msseg_jax.configuration.sections import NetworkSettings
from msseg_jax.network import native
from msseg_jax.network.layers import find_layers
from msseg_jax.network.model import SiameseMPUNet, variable_shapes
from msseg_jax.system.text_table import text_table


def layer_table(settings: NetworkSettings, patch_size: int) -> str:
    """Return a table of the layers in order of computation, with totals below.

    Only shapes are evaluated. No weights are created.

    Args:
      patch_size: side of the input, voxels.
    """
    model = SiameseMPUNet(settings)
    layers = find_layers(model, 1, (patch_size,) * 3)
    parameters = flatten_dict(variable_shapes(model)["params"])

    table = [("layer", "kernel", "input", "output", "parameters")]
    for path, shape in layers:
        # The parameters of a unit's batch norm are counted with its convolution.
        owner = path[:-1] if path[-1] == "convolution" else path
        count = sum(leaf.size for name, leaf in parameters.items() if name[: len(owner)] == owner)
        table.append(
            (
                "/".join(owner),
                "x".join(map(str, shape.kernel_shape[:3])),
                "x".join(map(str, (*shape.sides, sum(shape.channels)))),
                "x".join(map(str, (*shape.sides, shape.features))),
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
            f"convolutions: {len(layers)}",
            f"parameters: {total}",
        ]
    )
