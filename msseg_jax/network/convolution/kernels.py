"""Pallas kernels for NVIDIA GPUs since Ampere: products of wide voxels (`band`) on tensor cores.

XLA's convolutions concatenate several inputs first, and cuDNN wastes most of a tile of 64 output
channels on 6. These kernels read each input in place, and gather wide voxels while they load them.
Nothing is copied to memory in between.

A program of the grid computes ROWS wide voxels. `block` voxels with 6 channels give 3 x 3 products
of (ROWS, (block + 2) * 6) with ((block + 2) * 6, block * 6). In the memory of an input, the
(block + 2) * 6 numbers lie side by side. A tensor core needs at least 16 of everything, and Triton
powers of two. So the numbers of a wide voxel are divided into parts of 64, 32 and 16, and output
channels are padded. float32 is multiplied in TF32, bfloat16 as it is; both are added up in float32.

The gradient with respect to the inputs is the same kernel with one input and several outputs. For
the gradient with respect to the convolution's kernel, each program adds up a share of the rows, and
XLA adds up the shares. The order of the additions is fixed, so results are reproducible.

Pallas lowers these kernels to Triton. JAX has announced that it will remove this way one day.
They are then no longer chosen, because they do not compile.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from msseg_jax.network.convolution.band import band, blocks, of_band
from msseg_jax.network.convolution.form import Channels, Form, Inputs, mirrored

ROWS = 64  # wide voxels that a program computes at a time
SHARES = 256  # programs per tap among which the rows are divided for the gradient of the kernel
WARPS = 4
MOST_STAGES = 3  # steps of a loop whose numbers are in shared memory at the same time
STAGE_BYTES = 96 * 2**10  # of shared memory for these; two programs then fit into an H100's 227 KiB
PART_SIZES = (64, 32, 16)  # of the numbers in a wide voxel
INT32_MAX = 2**31 - 1

Ref = Any  # array in the memory of the GPU, within a kernel


def kernels(block: int, interpret: bool = False) -> Form:
    """Return the form with `block` voxels in a wide voxel.

    Args:
      interpret: run without Triton, slowly, on any device. This is for tests.
    """

    def forward(inputs: Inputs, kernel: jax.Array) -> jax.Array:
        channels = tuple(x.shape[-1] for x in inputs)
        parts = _along_inputs(kernel, channels)
        return _products(inputs, [[part] for part in parts], block, interpret)[0]

    def input_gradient(dy: jax.Array, kernel: jax.Array, channels: Channels) -> Inputs:
        return _products((dy,), [mirrored(kernel, channels)], block, interpret)

    def kernel_gradient(inputs: Inputs, dy: jax.Array, kernel_size: int) -> jax.Array:
        _require(kernel_size == 3, "only for 3x3x3 kernels")
        parts = [_kernel_gradient(x, dy, block, interpret) for x in inputs]
        return jnp.concatenate(parts, axis=3).astype(dy.dtype)

    return Form(f"kernels {block}", forward, input_gradient, kernel_gradient)


def _along_inputs(kernel: jax.Array, channels: Channels) -> list[jax.Array]:
    """Return the part of the kernel for each input, (K, K, K, C_i, Cout)."""
    ends = [sum(channels[: k + 1]) for k in range(len(channels) - 1)]
    return jnp.split(kernel, ends, axis=3)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotImplementedError(f"the Pallas convolution is {otherwise}")


# ------------------------------------------------------------------------------- positions


class _Grid(NamedTuple):
    """The wide voxels of a batch, numbered along (B, D, H, n)."""

    d: int
    h: int
    w: int
    block: int
    rows: int

    @classmethod
    def of(cls, x: jax.Array, block: int) -> "_Grid":
        b, d, h, w, _ = x.shape
        return cls(d, h, w, block, b * d * h * blocks(w, block))

    @property
    def tiles(self) -> int:
        """Number of groups of ROWS wide voxels."""
        return -(-self.rows // ROWS)

    def load(
        self, ref: Ref, channels: int, rows: jax.Array, tap: jax.Array, first: int, size: int
    ) -> jax.Array:
        """Load `size` numbers, from number `first`, of the wide voxels that a tap reads.

        Args:
          ref: the input (B, D, H, W, C), flat.
          rows: (ROWS,) numbers of the wide voxels of the output.
          tap: 0 to 8, a position of the kernel along D and H.

        Returns:
          (ROWS, size). It is zero outside the volume and beyond the last number.
        """
        width = self.w * channels
        n = blocks(self.w, self.block)
        line, column = _divide(rows, n)
        plane, y = _divide(line, self.h)
        _, z = _divide(plane, self.d)
        up, along = _divide(tap, 3)
        z, y = z + up - 1, y + along - 1
        inside = (rows < self.rows) & (z >= 0) & (z < self.d) & (y >= 0) & (y < self.h)
        shifted_line = line + (up - 1) * self.h + along - 1
        number = first + lax.broadcasted_iota(jnp.int32, (1, size), 1)
        # Along W and C. Written as a multiple of the block, so that Triton sees the alignment.
        x = (column * (self.block * channels))[:, None] + (number - channels)
        mask = inside[:, None] & (x >= 0) & (x < width) & (number < (self.block + 2) * channels)
        return _load(ref, shifted_line[:, None] * width + x, mask)

    def places(self, channels: int, rows: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        """Return where the channels of wide voxels lie without a halo, and which ones exist.

        Both have the shape (ROWS, size), size >= block * channels.
        """
        width = self.w * channels
        line, column = _divide(rows, blocks(self.w, self.block))
        number = lax.broadcasted_iota(jnp.int32, (1, size), 1)
        x = (column * (self.block * channels))[:, None] + number
        mask = (rows < self.rows)[:, None] & (number < self.block * channels) & (x < width)
        return (line * width)[:, None] + x, mask


def _divide(x: jax.Array, by: int) -> tuple[jax.Array, jax.Array]:
    """Return the quotient and the remainder of x >= 0. Operators would also handle x < 0."""
    divisor = jnp.full_like(x, by)
    return lax.div(x, divisor), lax.rem(x, divisor)


def _parts(numbers: int) -> list[tuple[int, int]]:
    """Divide the numbers of a wide voxel: (first, size) of each part, with sizes of PART_SIZES."""
    smallest = PART_SIZES[-1]
    end = -(-numbers // smallest) * smallest
    parts, first = [], 0
    while first < end:
        size = next(size for size in PART_SIZES if size <= end - first)
        parts.append((first, size))
        first += size
    return parts


def _padded_size(numbers: int) -> int:
    first, size = _parts(numbers)[-1]
    return first + size


def _power_of_two(numbers: int) -> int:
    """Return the smallest power of two that is at least `numbers` and 16."""
    return max(16, 1 << (numbers - 1).bit_length())


def _load(ref: Ref, places: jax.Array, mask: jax.Array) -> jax.Array:
    from jax.experimental.pallas import triton

    return triton.load(ref.at[places], mask=mask, other=0)


def _store(ref: Ref, places: jax.Array, values: jax.Array, mask: jax.Array) -> None:
    from jax.experimental.pallas import triton

    triton.store(ref.at[places], values.astype(ref.dtype), mask=mask)


def _product(x: jax.Array, y: jax.Array, over_rows: bool = False) -> jax.Array:
    """Return x @ y, or x.T @ y if `over_rows`, in float32; float32 is multiplied in TF32."""
    dimensions = (((0 if over_rows else 1,), (0,)), ((), ()))
    return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def _stages(numbers_per_step: int, dtype: jax.typing.DTypeLike) -> int:
    """Return the number of stages for a loop whose steps load so many numbers."""
    fitting = STAGE_BYTES // (numbers_per_step * jnp.dtype(dtype).itemsize)
    return max(2, min(MOST_STAGES, fitting))


def _check_size(*arrays: jax.Array | jax.ShapeDtypeStruct) -> None:
    # Positions are counted with 32 bits. Rows are rounded up, so leave some room.
    room = ROWS * 2**12
    _require(all(a.size < INT32_MAX - room for a in arrays), "only for less than 2^31 numbers")


# ------------------------------------------------------------------- forward, input gradient


def _products(
    inputs: Inputs, taps: Sequence[Sequence[jax.Array]], block: int, interpret: bool
) -> Inputs:
    """Return several outputs. Output k is the sum over all i of input i convolved with taps[i][k].

    Args:
      inputs: (B, D, H, W, C_i) each.
      taps: (3, 3, 3, C_i, F_k) each.

    Returns:
      (B, D, H, W, F_k) each.
    """
    from jax.experimental import pallas as pl  # here, because most programs do not need it

    _require(taps[0][0].shape[0] == 3, "only for 3x3x3 kernels")
    grid = _Grid.of(inputs[0], block)
    channels = [x.shape[-1] for x in inputs]
    features = [kernel.shape[-1] for kernel in taps[0]]
    sides = inputs[0].shape[:4]
    outputs = [jax.ShapeDtypeStruct((*sides, f), inputs[0].dtype) for f in features]
    _check_size(*inputs, *outputs)
    heights = [_padded_size((block + 2) * c) for c in channels]
    widths = [_power_of_two(block * f) for f in features]
    bands = [
        _fill(band(taps[i][k], block).reshape(9, (block + 2) * c, block * f), height, width)
        for i, (c, height) in enumerate(zip(channels, heights, strict=True))
        for k, (f, width) in enumerate(zip(features, widths, strict=True))
    ]

    def program(*refs: Ref) -> None:
        x_refs, band_refs, y_refs = (
            refs[: len(inputs)],
            refs[len(inputs) : len(inputs) + len(bands)],
            refs[len(inputs) + len(bands) :],
        )
        rows = pl.program_id(0) * ROWS + lax.iota(jnp.int32, ROWS)

        def add_tap(i: int, tap: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            new = list(sums)
            for first, size in _parts((block + 2) * channels[i]):
                x = grid.load(x_refs[i], channels[i], rows, tap, first, size)
                for k, width in enumerate(widths):
                    ref = band_refs[i * len(features) + k]
                    start = (tap * heights[i] + first) * width
                    new[k] += _product(x, _matrix(ref, start, size, width))
            return tuple(new)

        sums = tuple(jnp.zeros((ROWS, width), jnp.float32) for width in widths)
        # One loop for each input. In a common loop, shared memory would have to hold all of them.
        for i in range(len(inputs)):
            sums = lax.fori_loop(0, 9, functools.partial(add_tap, i), sums)
        for ref, f, width, total in zip(y_refs, features, widths, sums, strict=True):
            places, mask = grid.places(f, rows, width)
            _store(ref, places, total, mask)

    flat = _call(
        program,
        [*inputs, *bands],
        [jax.ShapeDtypeStruct((y.size,), y.dtype) for y in outputs],
        (grid.tiles,),
        f"convolution_{block}",
        _stages(max(heights) * (ROWS + sum(widths)), inputs[0].dtype),
        interpret,
    )
    return tuple(y.reshape(shape.shape) for y, shape in zip(flat, outputs, strict=True))


def _fill(bands: jax.Array, height: int, width: int) -> jax.Array:
    """Append zeros to matrices (9, ., .), so that they have the shape (9, height, width)."""
    _, h, w = bands.shape
    return jnp.pad(bands, ((0, 0), (0, height - h), (0, width - w)))


def _matrix(ref: Ref, start: jax.Array, height: int, width: int) -> jax.Array:
    """Load a matrix that lies in a flat array without gaps."""
    places = _matrix_places(start, height, width)
    return _load(ref, places, jnp.ones((height, width), bool))


def _matrix_places(start: jax.Array, height: int, width: int) -> jax.Array:
    row = lax.broadcasted_iota(jnp.int32, (height, width), 0)
    return start + row * width + lax.broadcasted_iota(jnp.int32, (height, width), 1)


def _call(
    program: Any,
    arrays: Sequence[jax.Array],
    outputs: Sequence[jax.ShapeDtypeStruct],
    grid: tuple[int, ...],
    name: str,
    stages: int,
    interpret: bool,
) -> list[jax.Array]:
    """Run a program on flat arrays."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    call = pl.pallas_call(
        program,
        out_shape=list(outputs),
        grid=grid,
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=stages),
        interpret=interpret,
        name=name,
    )
    return call(*(array.reshape(-1) for array in arrays))


# --------------------------------------------------------------------------- kernel gradient


def _kernel_gradient(x: jax.Array, dy: jax.Array, block: int, interpret: bool) -> jax.Array:
    """Return the gradient with respect to the part of the kernel that reads one input.

    The shapes are (B, D, H, W, C), (B, D, H, W, F) -> (3, 3, 3, C, F) float32.
    """
    from jax.experimental import pallas as pl

    _check_size(x, dy)
    grid = _Grid.of(x, block)
    c, f = x.shape[-1], dy.shape[-1]
    numbers, height, width = (
        (block + 2) * c,
        _padded_size((block + 2) * c),
        _power_of_two(block * f),
    )
    shares = min(SHARES, grid.tiles)
    tiles_per_share = -(-grid.tiles // shares)

    def program(x_ref: Ref, dy_ref: Ref, sums_ref: Ref) -> None:
        share, tap = pl.program_id(0), pl.program_id(1)

        def add_tile(k: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            # The shares take turns, so that programs of one moment read neighbouring rows.
            rows = (k * shares + share) * ROWS + lax.iota(jnp.int32, ROWS)
            places, mask = grid.places(f, rows, width)
            d_rows = _load(dy_ref, places, mask)
            return tuple(
                total + _product(grid.load(x_ref, c, rows, tap, first, size), d_rows, True)
                for total, (first, size) in zip(sums, _parts(numbers), strict=True)
            )

        zeros = tuple(jnp.zeros((size, width), jnp.float32) for _, size in _parts(numbers))
        sums = lax.fori_loop(0, tiles_per_share, add_tile, zeros)
        for total, (first, size) in zip(sums, _parts(numbers), strict=True):
            start = ((share * 9 + tap) * height + first) * width
            places = _matrix_places(start, size, width)
            _store(sums_ref, places, total, jnp.ones((size, width), bool))

    size = shares * 9 * height * width
    (sums,) = _call(
        program,
        [x, dy],
        [jax.ShapeDtypeStruct((size,), jnp.float32)],
        (shares, 9),
        f"kernel_gradient_{block}",
        _stages(ROWS * (height + width), x.dtype),
        interpret,
    )
    d_band = sums.reshape(shares, 3, 3, height, width).sum(axis=0)
    return of_band(d_band[:, :, :numbers, : block * f], block, c, f)
