"""The network of Fenneteau et al. (MSSEG-2, 2021): a Siamese U-Net++ and a refinement block.

    time01 --> MPU-net++ --> 3 maps --.
               (shared)                >-- concatenate --> refinement --> one map per target
    time02 --> MPU-net++ --> 3 maps --'

Arrays are channels last, (B, D, H, W, C): B patch pairs, D H W voxels, C feature maps.
"""

import functools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from msseg_jax.configuration.sections import NetworkSettings, patch_problems
from msseg_jax.network.batch_norm import BatchNorm
from msseg_jax.network.convolution import conv3d, conv3d_bias
from msseg_jax.system.errors import InputError

# {'params', 'batch_stats'}: nested dictionaries whose leaves are arrays, or stand for them
Variables = dict[str, Any]


class Convolution(nn.Module):
    """A 'same' convolution with stride 1, 3x3x3 or 1x1x1, of inputs as if concatenated."""

    features: int  # output feature maps
    kernel_size: int  # 1 or 3, the same along each axis
    initial_bias: float | None = None  # None: no bias, as batch norm follows with its own
    kernel_init: Callable[..., jax.Array] = nn.initializers.he_normal()

    @nn.compact
    def __call__(
        self,
        inputs: Sequence[jax.Array],
        norm: tuple[jax.Array, jax.Array] | None = None,
        relu: bool = False,
    ) -> jax.Array:
        """Convolve: (B, D, H, W, C_i) each -> (B, D, H, W, features).

        Args:
          norm: for inference: scale and shift of each output map, (features,) each, applied in the
            same pass.
          relu: with `norm`: whether a ReLU follows, in the same pass.
        """
        shape = (self.kernel_size,) * 3 + (sum(x.shape[-1] for x in inputs), self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(inputs[0].dtype)
        if norm is not None:
            scale, shift = (numbers.astype(kernel.dtype) for numbers in norm)
            return conv3d_bias(inputs, kernel * scale[None, None, None, None], shift, relu=relu)
        y = conv3d(inputs, kernel)
        if self.initial_bias is not None:
            bias = nn.initializers.constant(self.initial_bias)
            y = y + self.param("bias", bias, (self.features,))[None, None, None, None]
        return y


def dropout_draws(key: jax.Array, sample_ids: jax.Array, count: int) -> jax.Array:
    """Draw the uniform numbers that decide what dropout drops: (B,) int32 to (B, count) in [0, 1).

    They are a function of (key, sample id) and not of the sample's place in the batch, so that a
    batch spread over several devices loses the same maps as on one. One draw serves all layers,
    because on a CPU XLA takes seconds to compile each draw.
    """
    keys = jax.vmap(lambda sample_id: jax.random.fold_in(key, sample_id))(sample_ids)
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def drop_maps(x: jax.Array, draws: jax.Array, rate: float) -> jax.Array:
    """Drop whole feature maps: (B, D, H, W, C), (B, C) -> (B, D, H, W, C)."""
    scale = jnp.where(draws < rate, 0, 1 / (1 - rate)).astype(x.dtype)  # the mean stays the same
    return x * scale[:, None, None, None, :]


class Normalised(nn.Module):
    """Convolution, batch norm, activation: the unit of which the network is built."""

    features: int
    kernel_size: int
    activation: Callable[[jax.Array], jax.Array]
    norm_momentum: float  # decay of the running statistics, per step
    norm_epsilon: float
    axis_name: str | None  # pmap axis over which batch statistics are taken

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array], train: bool) -> jax.Array:
        """(B, D, H, W, C_i) each -> (B, D, H, W, features)."""
        convolution = Convolution(self.features, self.kernel_size, name="convolution")
        norm = BatchNorm(
            self.features, self.norm_momentum, self.norm_epsilon, self.axis_name, name="norm"
        )
        if train:
            return self.activation(norm(convolution(inputs)))
        # With running statistics batch norm is a scale and a shift; both go into the convolution.
        relu = self.activation is nn.relu
        y = convolution(inputs, norm.running(), relu)
        return y if relu else self.activation(y)


def max_pool(x: jax.Array) -> jax.Array:
    """Return the maximum of each 2x2x2 block: (B, 2D, 2H, 2W, C) -> (B, D, H, W, C).

    It goes axis by axis, which on a CPU is faster than `lax.reduce_window`, forward and backward.
    """
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    x = jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return jnp.maximum(x[:, :, :, 0::2], x[:, :, :, 1::2])


def upsample(x: jax.Array) -> jax.Array:
    """Repeat each voxel 2x2x2 times (nearest): (B, D, H, W, C) -> (B, 2D, 2H, 2W, C)."""
    b, d, h, w, c = x.shape
    x = x[:, :, None, :, None, :, None, :]
    return jnp.broadcast_to(x, (b, d, 2, h, 2, w, 2, c)).reshape(b, 2 * d, 2 * h, 2 * w, c)


class Node(nn.Module):
    """X(i, j) of the U-Net++ triangle: a few convolutions, then dropout."""

    features: int
    convolutions: int
    unit: Callable[..., Normalised]  # with its batch norm settings
    dropout_rate: float

    @nn.compact
    def __call__(
        self, inputs: Sequence[jax.Array], draws: jax.Array | None, train: bool
    ) -> jax.Array:
        """(B, D, H, W, C_i) each -> (B, D, H, W, features).

        Args:
          draws: for training: (B, features), of `dropout_draws`.
        """
        for k in range(self.convolutions):
            x = self.unit(self.features, kernel_size=3, activation=nn.relu, name=f"unit_{k}")(
                inputs, train
            )
            inputs = (x,)
        return x if draws is None else drop_maps(x, draws, self.dropout_rate)


class SegmentationBlock(nn.Module):
    r"""MPU-net++: a U-Net++ of few feature maps, with an output map from each of its decoders.

    It has a node X(i, j) for each depth i and column j with i + j < len(widths):

        X(0,0) --- X(0,1) --- X(0,2) --- X(0,3)      down: 2x max-pool of X(i-1, 0)
           \      /  \      /  \      /               up:   2x upsampling of X(i+1, j-1)
            X(1,0) --- X(1,1) --- X(1,2)             row:  every earlier node of the row,
               \      /  \      /                          concatenated
                X(2,0) --- X(2,1)
                   \      /
                    X(3,0)
    """

    widths: tuple[int, ...]  # feature maps of a node, by depth
    node_convolutions: int
    unit: Callable[..., Normalised]
    dropout_rate: float

    @property
    def dropped_maps(self) -> int:
        """Return the number of feature maps that dropout decides about, over all nodes."""
        return sum(sum(self.widths[: len(self.widths) - j]) for j in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, draws: jax.Array | None, train: bool) -> jax.Array:
        """(B, D, H, W, 1) -> (B, D, H, W, decoders).

        Args:
          draws: for training: (B, dropped_maps), of `dropout_draws`.
        """
        used = 0  # columns of draws

        def node(i: int, j: int, sources: Sequence[jax.Array]) -> jax.Array:
            nonlocal used
            width = self.widths[i]
            own_draws = None if draws is None else draws[:, used : used + width]
            used += width
            return Node(
                width, self.node_convolutions, self.unit, self.dropout_rate, name=f"node_{i}_{j}"
            )(sources, own_draws, train)

        depths = len(self.widths)
        rows: list[list[jax.Array]] = [[] for _ in range(depths)]  # rows[i][j] is X(i, j)
        for i in range(depths):
            rows[i].append(node(i, 0, (x if i == 0 else max_pool(rows[i - 1][0]),)))
        maps = []
        for j in range(1, depths):
            for i in range(depths - j):
                rows[i].append(node(i, j, (*rows[i], upsample(rows[i + 1][j - 1]))))
            head = self.unit(1, kernel_size=1, activation=nn.sigmoid, name=f"decoder_{j}")
            maps.append(head((rows[0][j],), train))
        return jnp.concatenate(maps, axis=-1)


class RefinementBlock(nn.Module):
    """Compares the maps of the two visits: what is there now, and was not there before."""

    targets: int  # output maps
    width: int  # feature maps
    convolutions: int
    initial_probability: float  # of new lesion, in the untrained network
    unit: Callable[..., Normalised]
    dropout_rate: float

    @nn.compact
    def __call__(self, maps: jax.Array, draws: jax.Array | None, train: bool) -> jax.Array:
        """(B, D, H, W, C) -> (B, D, H, W, targets).

        Args:
          draws: for training: (B, C), of `dropout_draws`.
        """
        if draws is not None:
            maps = drop_maps(maps, draws, self.dropout_rate)
        for k in range(self.convolutions):
            maps = self.unit(self.width, kernel_size=3, activation=nn.relu, name=f"unit_{k}")(
                (maps,), train
            )
        log_odds = math.log(self.initial_probability / (1 - self.initial_probability))
        # The kernel is zero at first, so that all targets begin alike. From random weights some
        # maps are pushed to 0 at once and stay there: the loss is one ratio for all targets, so
        # the other maps can do without them, and a saturated sigmoid has no gradient by which a
        # map could return.
        output = Convolution(self.targets, 1, log_odds, nn.initializers.zeros, name="output")
        return nn.sigmoid(output((maps.astype(jnp.float32),)))


class SiameseMPUNet(nn.Module):
    """Takes two visits and returns one probability map of new lesions per target.

    With the defaults of `configs/msseg2.py` it has 28 convolutions and 40,465 learnable
    parameters, the two figures that the paper gives.
    """

    settings: NetworkSettings
    axis_name: str | None = None  # pmap axis over which batch statistics are taken
    compute_dtype: str = "float32"  # of feature maps; parameters, statistics, output are float32

    @property
    def side_multiple(self) -> int:
        """Return the voxels of which a patch's side must be a multiple: it is halved per depth."""
        return self.settings.side_multiple

    def setup(self) -> None:
        settings = self.settings
        unit = partial(
            Normalised,
            norm_momentum=settings.norm_momentum,
            norm_epsilon=settings.norm_epsilon,
            axis_name=self.axis_name,
        )
        self.segmentation = SegmentationBlock(
            settings.widths, settings.node_convolutions, unit, settings.dropout_rate
        )
        self.refinement = RefinementBlock(
            settings.targets, settings.refinement_width, settings.refinement_convolutions,
            settings.initial_probability, unit, settings.dropout_rate,
        )  # fmt: skip

    def __call__(
        self,
        time01: jax.Array,
        time02: jax.Array,
        *,
        train: bool,
        patch_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Return the probability that each voxel belongs to a new lesion.

        Args:
          time01, time02: (B, D, H, W, 1), the normalised visits of B patches.
          train: batch statistics and dropout (which needs the 'dropout' key) if true; running
            statistics and no dropout if false.
          patch_ids: (B,) int32, needed in training: the numbers by which dropout knows the patches.

        Returns:
          (B, D, H, W, targets) float32, in [0, 1].

        Raises:
          ValueError: The visits differ in shape, or there are no patch numbers in training.
          InputError: A side cannot be halved often enough.
        """
        if time01.shape != time02.shape or time01.ndim != 5 or time01.shape[-1] != 1:
            raise ValueError(
                f"time01 has shape {time01.shape}, time02 {time02.shape}; expected the same shape "
                "(B, D, H, W, 1) for both"
            )
        check_patch_size(time01.shape[1:4], self.side_multiple)
        segmentation_draws = refinement_draws = None
        if train:
            if patch_ids is None:
                raise ValueError("patch_ids is None; expected (B,) patch numbers in training")
            visit_ids = jnp.concatenate([2 * patch_ids, 2 * patch_ids + 1])  # (2B,)
            split = self.segmentation.dropped_maps
            decoders = len(self.settings.widths) - 1
            draws = dropout_draws(self.make_rng("dropout"), visit_ids, split + 2 * decoders)
            segmentation_draws = draws[:, :split]
            refinement_draws = draws[: len(patch_ids), split:]

        # Both visits lie on the batch axis. So they share one set of weights and the batch
        # statistics, which do not depend on which visit came first.
        visits = jnp.concatenate([time01, time02], axis=0)  # (2B, D, H, W, 1)
        visits = visits.astype(self.compute_dtype)
        maps = self.segmentation(visits, segmentation_draws, train)  # (2B, D, H, W, decoders)
        both = jnp.concatenate(jnp.split(maps, 2, axis=0), axis=-1)  # (B, D, H, W, 2 decoders)
        return self.refinement(both, refinement_draws, train)


def check_patch_size(sides: Sequence[int], multiple: int) -> None:
    """Raise InputError unless each of `sides`, in voxels, is a positive multiple of `multiple`."""
    if problems := patch_problems(sides, multiple):
        raise InputError("\n".join(problems))


def initial_variables(model: SiameseMPUNet, seed: int) -> Variables:
    """Return parameters and batch statistics of an untrained network."""
    # 'rbg', because on a CPU XLA takes a minute to compile the default generator for 28 kernels.
    return _initialise(model, jax.random.key(seed, impl="rbg"))


@functools.partial(jax.jit, static_argnums=0)  # traced and compiled once for all that are alike
def _initialise(model: SiameseMPUNet, key: jax.Array) -> Variables:
    side = model.side_multiple  # the variables do not depend on the size of the patch
    visit = jnp.zeros((1, side, side, side, 1))
    return dict(model.init(key, visit, visit, train=False))


@functools.cache
def variable_shapes(model: SiameseMPUNet) -> Variables:
    """Return shapes and dtypes of what `initial_variables` returns; nothing is computed."""
    side = model.side_multiple
    visit = jax.ShapeDtypeStruct((1, side, side, side, 1), jnp.float32)
    return jax.eval_shape(
        lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
    )
