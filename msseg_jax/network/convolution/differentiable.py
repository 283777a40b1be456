"""The convolutions that the network calls. Each device computes them in its own form."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network import native
from msseg_jax.network.convolution import native_form
from msseg_jax.network.convolution.blocked import BLOCKED
from msseg_jax.network.convolution.choice import form_for
from msseg_jax.network.convolution.form import Form, Inputs, LayerShape
from msseg_jax.network.convolution.native_form import NATIVE
from msseg_jax.network.convolution.plain import PLAIN


def conv3d(inputs: Iterable[jax.Array], kernel: jax.Array) -> jax.Array:
    """Convolve the concatenated inputs with stride 1 and 'same' zero padding.

    Args:
      inputs: (B, D, H, W, C_i) each, to be concatenated along the channels. D, H and W may have any
        size. The C_i add up to Cin.
      kernel: (3, 3, 3, Cin, Cout) or (1, 1, 1, Cin, Cout).

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
            y = form.forward(inputs, kernel) + bias[None, None, None, None]
            return jnp.maximum(y, 0) if relu else y

        return run

    def native_bias(inputs: Inputs, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return native_form.forward_bias(inputs, kernel, bias, relu=relu)

    cpu = native_bias if _is_native(kernel.dtype) else with_bias(BLOCKED)
    gpu = with_bias(form_for(_layer(inputs, kernel), "forward"))
    return lax.platform_dependent(inputs, kernel, bias, cpu=cpu, cuda=gpu, default=with_bias(PLAIN))


def _check(inputs: Inputs, kernel: jax.Array) -> None:
    """Raise ValueError unless the shapes and dtypes of inputs and kernel match."""
    for x in inputs:
        if x.ndim != 5 or x.shape[:4] != inputs[0].shape[:4]:
            raise ValueError(
                f"conv3d: inputs have shapes {[x.shape for x in inputs]}; expected (B, D, H, W, C) "
                "each, the same except for C"
            )
    if kernel.ndim != 5 or kernel.shape[:3] not in ((3, 3, 3), (1, 1, 1)):
        raise ValueError(
            f"conv3d: kernel has shape {kernel.shape}; "
            "expected (3, 3, 3, Cin, Cout) or (1, 1, 1, Cin, Cout)"
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


def _is_native(dtype: jax.typing.DTypeLike) -> bool:
    """Return whether a CPU uses the native convolution for this dtype."""
    return dtype in (jnp.float32, jnp.bfloat16) and native.available()


def _cpu_form(dtype: jax.typing.DTypeLike) -> Form:
    return NATIVE if _is_native(dtype) else BLOCKED


def _layer(inputs: Inputs, kernel: jax.Array) -> LayerShape:
    return LayerShape.of(inputs, kernel.shape[-1], kernel.shape[0])


@jax.custom_vjp
def _convolve(inputs: Inputs, kernel: jax.Array) -> jax.Array:
    cpu, gpu = _cpu_form(kernel.dtype), form_for(_layer(inputs, kernel), "forward")
    return lax.platform_dependent(
        inputs, kernel, cpu=cpu.forward, cuda=gpu.forward, default=PLAIN.forward
    )


def _forward(inputs: Inputs, kernel: jax.Array) -> tuple[jax.Array, tuple[Inputs, jax.Array]]:
    return _convolve(inputs, kernel), (inputs, kernel)


def _backward(residuals: tuple[Inputs, jax.Array], dy: jax.Array) -> tuple[Inputs, jax.Array]:
    inputs, kernel = residuals
    channels = tuple(x.shape[-1] for x in inputs)
    size = kernel.shape[0]
    cpu = _cpu_form(kernel.dtype)

    def by_inputs(form: Form) -> Callable[[jax.Array, jax.Array], Inputs]:
        return lambda dy, kernel: form.input_gradient(dy, kernel, channels)

    def by_kernel(form: Form) -> Callable[[Inputs, jax.Array], jax.Array]:
        return lambda inputs, dy: form.kernel_gradient(inputs, dy, size)

    layer = _layer(inputs, kernel)
    d_inputs = lax.platform_dependent(
        dy, kernel, cpu=by_inputs(cpu), default=by_inputs(PLAIN),
        cuda=by_inputs(form_for(layer, "input gradient")),
    )  # fmt: skip
    dkernel = lax.platform_dependent(
        inputs, dy, cpu=by_kernel(cpu), default=by_kernel(PLAIN),
        cuda=by_kernel(form_for(layer, "kernel gradient")),
    )  # fmt: skip
    return d_inputs, dkernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)
