"""The network of this project in PyTorch, for comparisons of speed.

It can have the same weights. Needs the extra `benchmarks`. Arrays are in PyTorch's order,
(B, C, D, H, W). This module is not a command; `benchmarks.cpu` and `benchmarks.train` import it.
"""

import sys

if __name__ == "__main__":  # before PyTorch is imported, which may be missing
    sys.exit(
        "benchmarks.peers is not a command. It is the network in PyTorch, which benchmarks.cpu and "
        "benchmarks.train compare with this project's. Run one of them with --help."
    )

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Unit(nn.Module):
    """A convolution, batch normalisation and, if `relu` is true, a ReLU."""

    def __init__(self, channels, features, kernel_size=3, relu=True):
        super().__init__()
        self.convolution = nn.Conv3d(
            channels, features, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm3d(features)
        self.relu = relu

    def forward(self, x):
        x = self.norm(self.convolution(x))
        return functional.relu(x, inplace=True) if self.relu else x


class Peer(nn.Module):
    """`msseg_jax.network.model.SiameseMPUNet` in PyTorch, with the same names of its parts.

    Args:
      config: `config.model` of a configuration.
    """

    def __init__(self, config):
        super().__init__()
        widths = self.widths = tuple(config.widths)
        depths = len(widths)
        self.dropout = config.dropout_rate
        self.nodes, self.decoders = nn.ModuleDict(), nn.ModuleList()
        for j in range(depths):
            for i in range(depths - j):
                channels = j * widths[i] + widths[i + 1] if j else (widths[i - 1] if i else 1)
                units = [Unit(channels, widths[i])]
                units += [Unit(widths[i], widths[i]) for _ in range(config.node_convolutions - 1)]
                self.nodes[f"{i}_{j}"] = nn.Sequential(*units)
            if j:
                self.decoders.append(Unit(widths[0], 1, kernel_size=1, relu=False))
        width = config.refinement_width
        units = [Unit(2 * (depths - 1), width)]
        units += [Unit(width, width) for _ in range(config.refinement_convolutions - 1)]
        self.refinement = nn.Sequential(*units)
        self.output = nn.Conv3d(width, config.targets, 1)

    def forward(self, time01, time02):
        """Map two visits, each (B, 1, D, H, W), to (B, targets, D, H, W) in [0, 1]."""
        maps = self.segment(torch.cat([time01, time02]))
        both = torch.cat(torch.chunk(maps, 2), dim=1)
        both = functional.dropout3d(both, self.dropout, self.training)
        return torch.sigmoid(self.output(self.refinement(both)))

    def segment(self, x):
        """Map single visits, (B, 1, D, H, W), to one map per decoder, (B, depths - 1, D, H, W)."""
        depths = len(self.widths)

        def node(i, j, source):
            y = self.nodes[f"{i}_{j}"](source)
            return functional.dropout3d(y, self.dropout, self.training)

        rows = [[] for _ in range(depths)]
        for i in range(depths):
            rows[i].append(node(i, 0, functional.max_pool3d(rows[i - 1][0], 2) if i else x))
        maps = []
        for j in range(1, depths):
            for i in range(depths - j):
                below = functional.interpolate(rows[i + 1][j - 1], scale_factor=2)
                rows[i].append(node(i, j, torch.cat([*rows[i], below], dim=1)))
            maps.append(torch.sigmoid(self.decoders[j - 1](rows[0][j])))
        return torch.cat(maps, dim=1)


def with_weights(peer: Peer, variables: dict) -> Peer:
    """Copy the parameters and running statistics of the JAX network into `peer`, and return it."""
    params, stats = variables["params"], variables["batch_stats"]

    def fill(unit, ours, our_stats):
        unit.convolution.weight.data = _kernel(ours["convolution"]["kernel"])
        unit.norm.weight.data = _tensor(ours["norm"]["scale"])
        unit.norm.bias.data = _tensor(ours["norm"]["bias"])
        unit.norm.running_mean = _tensor(our_stats["norm"]["mean"])
        unit.norm.running_var = _tensor(our_stats["norm"]["var"])

    for name, units in peer.nodes.items():
        for k, unit in enumerate(units):
            part = f"node_{name}", f"unit_{k}"
            fill(unit, _at(params["segmentation"], part), _at(stats["segmentation"], part))
    for j, unit in enumerate(peer.decoders, start=1):
        part = (f"decoder_{j}",)
        fill(unit, _at(params["segmentation"], part), _at(stats["segmentation"], part))
    for k, unit in enumerate(peer.refinement):
        fill(unit, params["refinement"][f"unit_{k}"], stats["refinement"][f"unit_{k}"])
    output = params["refinement"]["output"]
    peer.output.weight.data = _kernel(output["kernel"])
    peer.output.bias.data = _tensor(output["bias"])
    return peer


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def _tensor(array):
    return torch.from_numpy(np.array(array, np.float32))


def _kernel(array):
    """Transpose a kernel from (K, K, K, Cin, Cout) to (Cout, Cin, K, K, K)."""
    return _tensor(np.moveaxis(np.asarray(array), (4, 3), (0, 1)).copy())
