"""All passes of a convolution on random arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from msseg_jax.network.convolution.plain import PLAIN


def arrays(batch, sides, channels, features, size, dtype):
    """Return random inputs, a kernel and a gradient of the output."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), dtype)

    inputs = tuple(draw(batch, *sides, c) for c in channels)
    return inputs, draw(*[size] * 3, sum(channels), features), draw(batch, *sides, features)


def all_passes(form, inputs, kernel, dy):
    """Return the output, the gradient of each input, and the gradient of the kernel."""
    channels = tuple(x.shape[-1] for x in inputs)
    y = form.forward(inputs, kernel)
    d_inputs = form.input_gradient(dy, kernel, channels)
    return y, *d_inputs, form.kernel_gradient(inputs, dy, kernel.shape[0])


def expected_passes(inputs, kernel, dy):
    with jax.default_matmul_precision("highest"):
        return all_passes(
            PLAIN, *jax.tree.map(lambda a: a.astype(jnp.float32), (inputs, kernel, dy))
        )
