"""How a trained network is applied to a pair."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What turns probabilities into a mask."""

    overlap: int  # voxels shared by neighbouring tiles
    threshold: float  # probability above which a voxel is new lesion
    min_lesion_mm3: float  # smaller components are dropped
    batch_size: int  # tiles of the model's patch size per call of the network
    tile: int | None = None  # largest side of a tile, voxels; None: the model's patch size
