"""Describe the layers of a network in a table with one line per convolution."""

from collections.abc import Set

import jax
from flax.traverse_util import flatten_dict

from msseg_jax.configuration.sections import NetworkSettings
from msseg_jax.network import native
from msseg_jax.network.convolution import choice
from msseg_jax.network.convolution.choice import chosen
from msseg_jax.network.convolution.form import PASSES
from msseg_jax.network.convolution.job import Job
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.layers import find_layers, training_jobs
from msseg_jax.network.model import SiameseMPUNet, variable_shapes
from msseg_jax.system.text_table import text_table


def layer_table(
    settings: NetworkSettings, patch_size: int, batch_size: int = 1, compute_dtype: str = "float32"
) -> str:
    """Return a table of the layers in order of computation, with totals below.

    Only shapes are evaluated. No weights are created. On an NVIDIA GPU, the table contains the form
    of each convolution in each pass of a training step.

    Args:
      patch_size: side of the input, voxels.
      batch_size: pairs of patches on one device.
      compute_dtype: of the feature maps.
    """
    model = SiameseMPUNet(settings, compute_dtype=compute_dtype)
    layers = find_layers(model, batch_size, (patch_size,) * 3)
    on_gpu, needed = jax.default_backend() == "gpu", set(training_jobs(layers))
    parameters = flatten_dict(variable_shapes(model)["params"])

    table = [["layer", "kernel", "input", "output", *list(PASSES) * on_gpu, "parameters"]]
    for path, shape in layers:
        # The parameters of a unit's batch norm are counted with its convolution.
        owner = path[:-1] if path[-1] == "convolution" else path
        count = sum(leaf.size for name, leaf in parameters.items() if name[: len(owner)] == owner)
        table.append(
            [
                "/".join(owner),
                "x".join(map(str, shape.kernel_shape[:3])),
                "x".join(map(str, (*shape.sides, sum(shape.channels)))),
                "x".join(map(str, (*shape.sides, shape.features))),
                *[_choice(Job(shape, which), needed) for which in PASSES if on_gpu],
                f"{count:,}",
            ]
        )
    total = sum(leaf.size for leaf in parameters.values())
    return "\n".join(
        [
            text_table(table, "<" * len(table[0])),
            "",
            _forms_on_gpu(batch_size, compute_dtype) if on_gpu else _form_on_cpu(),
            f"convolutions: {len(layers)}",
            f"parameters: {total}",
        ]
    )


def _choice(job: Job, needed: Set[Job]) -> str:
    """Return the form that a GPU uses for a pass, as text."""
    if job not in needed:
        return "-"
    if choice.why_not():
        return PLAIN.name
    outcomes = choice.known().get(str(job))
    return chosen(outcomes) if outcomes else "not timed yet"


def _forms_on_gpu(batch_size: int, compute_dtype: str) -> str:
    reason = choice.why_not() or "timed before the first training"
    return f"convolutions on {choice.card()}, for {batch_size} pairs in {compute_dtype}: {reason}"


def _form_on_cpu() -> str:
    used, reason = native.state()
    return f"convolution on a CPU: {'native' if used else 'plain JAX'}, {reason}"
