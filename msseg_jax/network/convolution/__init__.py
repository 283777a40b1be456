"""A 3-D convolution for networks with few channels that is fast on CPUs and on accelerators.

XLA's own 3-D convolution uses the hardware poorly if a layer has as few as 6 channels. So a
convolution has several forms here. All compute the same function, and one module holds each:

    plain         XLA's convolution: the reference, and the form for TPUs
    native_form   C++ kernels for CPUs (`msseg_jax/network/native/`)
    blocked       plain JAX for CPUs without a compiler
    padded        XLA's convolution with channels in multiples of 8
    wide          a 2-D convolution of wide voxels: neighbouring voxels become channels
    shifted       a sum of shifted matrix products
    kernels       Pallas kernels for NVIDIA GPUs

`differentiable` contains the functions that the network calls, and their gradients. On a CPU it
takes the native form if that is available. On an NVIDIA GPU, it takes for each layer and pass the
form that was the fastest on this card (`choice`), and the plain form where nothing was timed. The
form is chosen when a program is lowered. The same program therefore works on all kinds of device,
and the compiled code contains only the form for its own device.
"""

from msseg_jax.network.convolution.differentiable import conv3d, conv3d_bias

__all__ = ["conv3d", "conv3d_bias"]
