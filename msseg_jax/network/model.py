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

# The maps of the decoders are kept here, if a caller makes the collection 'intermediates' mutable.
DECODER_MAPS = "decoder_maps"

# {'params', 'batch_stats'}: nested dictionaries. The leaves are arrays, or their shapes and dtypes.
Variables = dict[str, Any]


class Convolution(nn.Module):
    """A 3x3x3 or 1x1x1 convolution of concatenated inputs, with stride 1 and 'same' padding."""

    features: int  # output feature maps
    kernel_size: int  # 1 or 3, the same along each axis
    initial_bias: float | None = None  # None: no bias, because batch norm adds one
    kernel_init: Callable[..., jax.Array] = nn.initializers.he_normal()

    @nn.compact
    def __call__(
        self,
        inputs: Sequence[jax.Array],
        norm: tuple[jax.Array, jax.Array] | None = None,
        relu: bool = False,
    ) -> jax.Array:
        """Convolve inputs (B, D, H, W, C_i) to (B, D, H, W, features).

        Args:
          norm: scale and shift of each output map, (features,) each, for inference. They are
            applied in the same pass.
          relu: whether to apply a ReLU in the same pass. It is ignored without `norm`.
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
    """Draw uniform numbers in [0, 1) for dropout, (B, count), from sample numbers (B,) int32.

    They depend on (key, sample number) and not on the position of a sample in the batch, so the
    same maps are dropped if the batch is divided among several devices. One draw serves all
    layers, because XLA takes seconds to compile each draw on a CPU.
    """
    keys = jax.vmap(lambda sample_id: jax.random.fold_in(key, sample_id))(sample_ids)
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def drop_maps(x: jax.Array, draws: jax.Array, rate: float) -> jax.Array:
    """Drop whole feature maps of x (B, D, H, W, C). `draws` (B, C) has one number per map."""
    scale = jnp.where(draws < rate, 0, 1 / (1 - rate)).astype(x.dtype)  # keeps the expected value
    return x * scale[:, None, None, None, :]


class Normalised(nn.Module):
    """The basic unit of the network: convolution, batch norm, activation."""

    features: int
    kernel_size: int
    activation: Callable[[jax.Array], jax.Array]
    norm_momentum: float  # decay of the running statistics, per step
    norm_epsilon: float
    axis_name: str | None  # pmap axis over which batch statistics are taken

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array], train: bool) -> jax.Array:
        """Map inputs (B, D, H, W, C_i) to (B, D, H, W, features)."""
        convolution = Convolution(self.features, self.kernel_size, name="convolution")
        norm = BatchNorm(
            self.features, self.norm_momentum, self.norm_epsilon, self.axis_name, name="norm"
        )
        if train:
            return self.activation(norm(convolution(inputs)))
        # With running statistics, batch norm is a scale and a shift. The convolution applies both.
        relu = self.activation is nn.relu
        y = convolution(inputs, norm.running(), relu)
        return y if relu else self.activation(y)


def max_pool(x: jax.Array) -> jax.Array:
    """Return the maximum of each 2x2x2 block: (B, 2D, 2H, 2W, C) -> (B, D, H, W, C).

    Pooling one axis at a time is faster on a CPU than `lax.reduce_window`, forward and backward.
    """
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    x = jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return jnp.maximum(x[:, :, :, 0::2], x[:, :, :, 1::2])


class Node(nn.Module):
    """A node X(i, j) of the U-Net++ triangle: a few convolutions, then dropout."""

    features: int
    convolutions: int
    unit: Callable[..., Normalised]  # `Normalised` with the batch norm settings filled in
    dropout_rate: float

    @nn.compact
    def __call__(
        self, inputs: Sequence[jax.Array], draws: jax.Array | None, train: bool
    ) -> jax.Array:
        """Map inputs (B, D, H, W, C_i) to (B, D, H, W, features).

        Args:
          draws: (B, features), from `dropout_draws`. None: no dropout.
        """
        for k in range(self.convolutions):
            x = self.unit(self.features, kernel_size=3, activation=nn.relu, name=f"unit_{k}")(
                inputs, train
            )
            inputs = (x,)
        return x if draws is None else drop_maps(x, draws, self.dropout_rate)


class SegmentationBlock(nn.Module):
    r"""MPU-net++: a U-Net++ with few feature maps. Each of its decoders gives one output map.

    It has a node X(i, j) for each depth i and column j with i + j < len(widths):

        X(0,0) --- X(0,1) --- X(0,2) --- X(0,3)      down: 2x max-pool of X(i-1, 0)
           \      /  \      /  \      /               up:   2x upsampling of X(i+1, j-1)
            X(1,0) --- X(1,1) --- X(1,2)             row:  every earlier node of the row,
               \      /  \      /                          concatenated
                X(2,0) --- X(2,1)
                   \      /
                    X(3,0)
    """

    widths: tuple[int, ...]  # number of feature maps of a node, by depth
    node_convolutions: int
    unit: Callable[..., Normalised]
    dropout_rate: float

    @property
    def dropped_maps(self) -> int:
        """Return the number of feature maps to which dropout applies, over all nodes."""
        return sum(sum(self.widths[: len(self.widths) - j]) for j in range(len(self.widths)))

    @nn.compact
    def __call__(self, x: jax.Array, draws: jax.Array | None, train: bool) -> jax.Array:
        """Map visits (B, D, H, W, 1) to (B, D, H, W, decoders).

        Args:
          draws: (B, dropped_maps), from `dropout_draws`. None: no dropout.
        """
        used = 0  # number of columns of `draws` used so far

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
                # The convolution upsamples the last of these inputs, which has half the size.
                rows[i].append(node(i, j, (*rows[i], rows[i + 1][j - 1])))
            head = self.unit(1, kernel_size=1, activation=nn.sigmoid, name=f"decoder_{j}")
            maps.append(head((rows[0][j],), train))
        return jnp.concatenate(maps, axis=-1)


class RefinementBlock(nn.Module):
    """Compares the maps of the two visits to find what is present only at the second."""

    targets: int  # number of output maps
    width: int  # number of feature maps
    convolutions: int
    initial_probability: float  # probability of a new lesion that the untrained network gives
    unit: Callable[..., Normalised]
    dropout_rate: float

    @nn.compact
    def __call__(self, maps: jax.Array, draws: jax.Array | None, train: bool) -> jax.Array:
        """Map the maps of both visits (B, D, H, W, C) to (B, D, H, W, targets).

        Args:
          draws: (B, C), from `dropout_draws`. None: no dropout.
        """
        if draws is not None:
            maps = drop_maps(maps, draws, self.dropout_rate)
        for k in range(self.convolutions):
            maps = self.unit(self.width, kernel_size=3, activation=nn.relu, name=f"unit_{k}")(
                (maps,), train
            )
        log_odds = math.log(self.initial_probability / (1 - self.initial_probability))
        # Zero initialisation: all outputs start equal, and none saturates. With random weights,
        # some output maps quickly go to 0 and stay there. The loss is one ratio over all targets,
        # so it can fall without these maps, and a saturated sigmoid has no gradient that would
        # bring them back.
        output = Convolution(self.targets, 1, log_odds, nn.initializers.zeros, name="output")
        return nn.sigmoid(output((maps.astype(jnp.float32),)))


class SiameseMPUNet(nn.Module):
    """The whole network: maps two visits to one probability map of new lesions per target.

    With the defaults of `configs/msseg2.py`, it has 28 convolutions and 40,465 learnable
    parameters. The paper states the same numbers.
    """

    settings: NetworkSettings
    axis_name: str | None = None  # pmap axis over which batch statistics are taken
    compute_dtype: str = "float32"  # of feature maps; parameters, statistics, output are float32

    @property
    def side_multiple(self) -> int:
        """Return the number of voxels by which a patch's side must be divisible.

        The side is halved once per depth.
        """
        return self.settings.side_multiple

    def setup(self) -> None:
        """Declare the segmentation block and the refinement block."""
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
          train: if true, use batch statistics and dropout, which needs the 'dropout' key. If false,
            use running statistics and no dropout.
          patch_ids: (B,) int32, the patch numbers that seed dropout. Required in training.

        Returns:
          (B, D, H, W, targets) float32, in [0, 1]. If the collection 'intermediates' is mutable, it
          contains a tuple `DECODER_MAPS` with one array (2B, D, H, W, decoders): the maps of the
          first visits, then those of the second ones.

        Raises:
          ValueError: The visits differ in shape, or there are no patch numbers in training.
          InputError: A side is not divisible by `side_multiple`.
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

        # Both visits are stacked on the batch axis. They share one set of weights and the batch
        # statistics, which therefore do not depend on the order of the visits.
        visits = jnp.concatenate([time01, time02], axis=0)  # (2B, D, H, W, 1)
        visits = visits.astype(self.compute_dtype)
        maps = self.segmentation(visits, segmentation_draws, train)  # (2B, D, H, W, decoders)
        self.sow("intermediates", DECODER_MAPS, maps)  # does nothing in inference
        both = jnp.concatenate(jnp.split(maps, 2, axis=0), axis=-1)  # (B, D, H, W, 2 decoders)
        return self.refinement(both, refinement_draws, train)


def check_patch_size(sides: Sequence[int], multiple: int) -> None:
    """Raise InputError unless each of `sides`, in voxels, is a positive multiple of `multiple`."""
    if problems := patch_problems(sides, multiple):
        raise InputError("\n".join(problems))


def initial_variables(model: SiameseMPUNet, seed: int) -> Variables:
    """Return the parameters and the batch statistics of an untrained network."""
    # With the default generator instead of 'rbg', XLA needs a minute on a CPU to compile the
    # initialisation of 28 kernels.
    return _initialise(model, jax.random.key(seed, impl="rbg"))


@functools.partial(jax.jit, static_argnums=0)  # compiled once for all equal models
def _initialise(model: SiameseMPUNet, key: jax.Array) -> Variables:
    side = model.side_multiple  # the variables do not depend on the size of the patch
    visit = jnp.zeros((1, side, side, side, 1))
    return dict(model.init(key, visit, visit, train=False))


@functools.cache
def variable_shapes(model: SiameseMPUNet) -> Variables:
    """Return the shapes and dtypes of the arrays of `initial_variables`, without computing them."""
    side = model.side_multiple
    visit = jax.ShapeDtypeStruct((1, side, side, side, 1), jnp.float32)
    return jax.eval_shape(
        lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
    )
