"""Read the probability maps of labelled pairs, from several folders."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import bounding_box, grid_difference
from msseg_jax.volumes.layout import CONSENSUS
from msseg_jax.volumes.nifti import read_volume


@dataclass(frozen=True)
class LabelledMap:
    """The probability map of a pair, and its true new lesions, cropped to where there is any."""

    target: np.ndarray  # (D, H, W) bool
    probability: np.ndarray  # (D, H, W) float32
    spacing_mm: tuple[float, float, float]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that name the folders."""
    again = "Can be given several times, always with the other flag"
    parser.add_argument(
        "--reference", required=True, type=Path, metavar="ROOT", action="append",
        help=f"labelled pairs. {again}",
    )  # fmt: skip
    parser.add_argument(
        "--probability", required=True, type=Path, metavar="DIR", action="append",
        help=f"their probability maps, by a network that has not seen them. {again}",
    )  # fmt: skip


def labelled_paths(references: list[Path], probabilities: list[Path]) -> list[tuple[Path, Path]]:
    """Return the paths of the reference and of the probability map of each pair.

    Args:
      references: folders of pairs, in the MSSEG-2 layout.
      probabilities: for each of them, the folder of the maps <patient>.nii.gz.

    Raises:
      InputError: there are more folders of one kind, a folder of maps is given twice, or it holds
        no map.
    """
    if len(references) != len(probabilities):
        raise InputError(
            f"--reference is given {len(references)} times, and --probability "
            f"{len(probabilities)} times; expected one --probability for each --reference"
        )
    places = [folder.resolve() for folder in probabilities]
    if len(set(places)) < len(places):
        twice = max(probabilities, key=lambda folder: places.count(folder.resolve()))
        raise InputError(
            f"--probability={twice} is given twice, so its lesions would count twice. Give each "
            "folder once."
        )
    found = []
    for root, folder in zip(references, probabilities, strict=True):
        maps = sorted(folder.glob("*.nii.gz"))
        if not maps:
            raise InputError(
                f"--probability={folder} holds no probability map; expected files "
                "<patient>.nii.gz. Make them with msseg predict --dataset ROOT --probability DIR."
            )
        found += [(root / one.name.removesuffix(".nii.gz") / CONSENSUS, one) for one in maps]
    return found


def read_labelled_map(reference: Path, probability: Path, least: float) -> LabelledMap:
    """Read the reference and the probability map of a pair.

    Args:
      least: voxels of this probability or less may be cropped away.

    Raises:
      InputError: a file cannot be read, the map is not on the grid of the reference, or it holds
        no probabilities.
    """
    volume, likelihood = read_volume(reference), read_volume(probability)
    if problem := grid_difference(volume, likelihood):
        raise InputError(problem)
    lowest, highest = likelihood.array.min(), likelihood.array.max()
    if not (lowest >= 0 and highest <= 1):
        raise InputError(
            f"{probability}: its values are {lowest:g} to {highest:g}; expected probabilities, 0 "
            "to 1. Give the folder that `msseg predict --probability` wrote."
        )
    target = volume.array > 0
    box = bounding_box(target | (likelihood.array > least))
    return LabelledMap(target[box], likelihood.array[box], volume.spacing_mm)
