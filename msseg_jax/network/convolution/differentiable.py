"""The convolutions that the network calls. Each device computes them in its own form."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network import native
from msseg_jax.network.convolution import native_form
from msseg_jax.network.convolution.blocked import BLOCKED
from msseg_jax.network.convolution.choice import form_for
from msseg_jax.network.convolution.form import Form, Inputs, LayerShape, Pass
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.network.convolution.upsampling import full_sides, is_half, upsampled


def conv3d(inputs: Iterable[jax.Array], kernel: jax.Array) -> jax.Array:
    """Convolve the concatenated inputs with stride 1 and 'same' zero padding.

    Args:
      inputs: (B, D, H, W, C_i) each, to be concatenated along the channels. D, H and W may have any
        size. The C_i add up to Cin. Inputs with half as many voxels along each axis, (B, D/2, H/2,
        W/2, C_i), are upsampled: each of their voxels stands for a block of 2x2x2.
      kernel: (3, 3, 3, Cin, Cout), or (1, 1, 1, Cin, Cout) if all inputs have one size.

    Returns:
      (B, D, H, W, Cout). It can be differentiated once, in reverse mode.

    Raises:
      ValueError: The shapes or the dtypes do not match.
    """
    inputs = tuple(inputs)
    _check(inputs, kernel)
    return _convolve(inputs, kernel)


def conv3d_bias(
    inputs: Iterable[jax.Array], kernel: jax.Array, bias: jax.Array, *, relu: bool
) -> jax.Array:
    """Compute `conv3d`, add a bias (Cout,), and apply a ReLU if `relu`, all in one pass.

    It cannot be differentiated.

    Raises:
      ValueError: The shapes or the dtypes do not match.
    """
    inputs = tuple(inputs)
    _check(inputs, kernel)
    if bias.shape != kernel.shape[-1:] or bias.dtype != kernel.dtype:
        raise ValueError(
            f"conv3d: bias is {bias.dtype}{bias.shape}; expected {kernel.dtype}{kernel.shape[-1:]}"
        )

    def with_bias(form: Form) -> Callable[[Inputs, jax.Array, jax.Array], jax.Array]:
        def run(inputs: Inputs, kernel: jax.Array, bias: jax.Array) -> jax.Array:
            y = form.forward(upsampled(inputs), kernel) + bias[None, None, None, None]
            return jnp.maximum(y, 0) if relu else y

        return run

    def native_bias(inputs: Inputs, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return native_form.forward_bias(inputs, kernel, bias, relu=relu)

    form = _cpu_form(kernel.dtype)
    cpu = with_bias(form) if form else native_bias
    gpu = with_bias(_gpu_form(inputs, kernel, "forward"))
    return lax.platform_dependent(inputs, kernel, bias, cpu=cpu, cuda=gpu, default=with_bias(PLAIN))


def _check(inputs: Inputs, kernel: jax.Array) -> None:
    """Raise ValueError unless the shapes and dtypes of inputs and kernel match."""
    if kernel.ndim != 5 or kernel.shape[:3] not in ((3, 3, 3), (1, 1, 1)):
        raise ValueError(
            f"conv3d: kernel has shape {kernel.shape}; "
            "expected (3, 3, 3, Cin, Cout) or (1, 1, 1, Cin, Cout)"
        )
    full = full_sides(inputs)
    for x in inputs:
        fits = x.ndim == 5 and (x.shape[:4] == full or (kernel.shape[0] == 3 and is_half(x, full)))
        if not fits or x.size == 0:
            raise ValueError(
                f"conv3d: inputs have shapes {[x.shape for x in inputs]}; expected (B, D, H, W, C) "
                "each, not empty, the same except for C, or half of D, H and W if the kernel is "
                "3x3x3"
            )
    if any(x.dtype != kernel.dtype for x in inputs):
        raise ValueError(
            f"conv3d: inputs are {[str(x.dtype) for x in inputs]}, the kernel is {kernel.dtype}; "
            "expected the same dtype for all"
        )
    channels = sum(x.shape[-1] for x in inputs)
    if kernel.shape[3] != channels:
        raise ValueError(
            f"conv3d: kernel expects {kernel.shape[3]} channels, but the inputs have {channels}"
        )


def _cpu_form(dtype: jax.typing.DTypeLike) -> Form | None:
    """Return the form for a CPU; None for the native one, which reads inputs of both sizes."""
    is_native = dtype in (jnp.float32, jnp.bfloat16) and native.available()
    return None if is_native else BLOCKED


def _upsampling(form: Form) -> Callable[[Inputs, jax.Array], jax.Array]:
    """Return the forward pass of a form that reads inputs of one size."""
    return lambda inputs, kernel: form.forward(upsampled(inputs), kernel)


def _gpu_form(inputs: Inputs, kernel: jax.Array, which: Pass) -> Form:
    return form_for(LayerShape.of(inputs, kernel.shape[-1], kernel.shape[0]), which)


@jax.custom_vjp
def _convolve(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    form = _cpu_form(kernel.dtype)
    cpu = _upsampling(form) if form else native_form.forward
    gpu = _gpu_form(inputs, kernel, "forward")
    return lax.platform_dependent(
        inputs, kernel, cpu=cpu, cuda=_upsampling(gpu), default=_upsampling(PLAIN)
    )


def _forward(inputs: Inputs, kernel: jax.Array) -> tuple[jax.Array, tuple[Inputs, jax.Array]]:
    return _convolve(inputs, kernel), (inputs, kernel)


Gradients = Callable[[Inputs, jax.Array, jax.Array], tuple[Inputs, jax.Array]]


def _gradients(by_inputs: Form, by_kernel: Form) -> Gradients:
    """Return the function (inputs, kernel, dy) -> (gradients of the inputs, of the kernel).

    Args:
      by_inputs, by_kernel: the forms that compute the two. They read inputs of one size.
    """

    def run(inputs: Inputs, kernel: jax.Array, dy: jax.Array) -> tuple[Inputs, jax.Array]:
        full, to_inputs = jax.vjp(lambda *inputs: upsampled(inputs), *inputs)
        d_full = by_inputs.input_gradient(dy, kernel, tuple(x.shape[-1] for x in inputs))
        d_kernel = by_kernel.kernel_gradient(full, dy, kernel.shape[0])
        return to_inputs(d_full), d_kernel.astype(kernel.dtype)

    return run


def _backward(residuals: tuple[Inputs, jax.Array], dy: jax.Array) -> tuple[Inputs, jax.Array]:
    inputs, kernel = residuals
    form = _cpu_form(kernel.dtype)
    cpu = _gradients(form, form) if form else native_form.gradients
    gpu = _gradients(
        _gpu_form(inputs, kernel, "input gradient"), _gpu_form(inputs, kernel, "kernel gradient")
    )
    return lax.platform_dependent(
        inputs, kernel, dy, cpu=cpu, cuda=gpu, default=_gradients(PLAIN, PLAIN)
    )


_convolve.defvjp(_forward, _backward)
