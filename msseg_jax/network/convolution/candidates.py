"""The forms among which an NVIDIA GPU can choose."""

from msseg_jax.network.convolution.form import Form
from msseg_jax.network.convolution.kernels import kernels
from msseg_jax.network.convolution.padded import PADDED
from msseg_jax.network.convolution.shifted import shifted
from msseg_jax.network.convolution.wide import wide

# In the order in which they are tried. The most promising ones come first, because time is limited.
CANDIDATES: tuple[Form, ...] = (
    kernels(4), kernels(8), kernels(2), wide(8), shifted(8), wide(4), shifted(4), PADDED,
)  # fmt: skip

# With a kernel of one voxel, several forms are the same matrix product.
FOR_SINGLE_VOXELS: tuple[Form, ...] = (shifted(8), PADDED)


def candidates(kernel_size: int) -> tuple[Form, ...]:
    """Return the forms to compare with the plain one."""
    return FOR_SINGLE_VOXELS if kernel_size == 1 else CANDIDATES
