"""Draw close-ups of the largest lesions of a mask at both visits, in one picture.

Usage: python -m benchmarks.pictures PATIENT_FOLDER MASK PICTURE.png [--lesions N]
Slices are in radiological convention: the patient's right is on the left. The outlines of MASK are
orange. If the folder has a ground_truth.nii.gz, its outlines are blue and dashed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from msseg_jax.report.grey import brightness_of_both
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.axial_view import AxialView
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.layout import CONSENSUS, patient_in
from msseg_jax.volumes.lesions import number_lesions, voxel_mm3
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.pair import read_pair

AROUND_MM = 30.0  # half the side of a close-up
INCHES = 1.7  # side of a close-up
PREDICTED, REFERENCE = "#e69f00", "#56b4e9"


def draw(folder: Path, mask_file: Path, lesions: int) -> Figure:
    """Draw a column of three close-ups for each of the largest lesions.

    The close-ups are, from above: first visit, second visit, second visit with outlines.

    Raises:
      InputError: the mask is empty or not on the grid of the visits, or a file cannot be used.
    """
    has_reference = (folder / CONSENSUS).is_file()
    pair = read_pair(patient_in(folder, targets=int(has_reference)))
    volume = read_volume(mask_file)
    if problem := grid_difference(pair.time01, volume):
        raise InputError(problem)
    mask = volume.array > 0
    view = AxialView.of(pair.time01.affine, pair.brain.shape)
    labels, count = number_lesions(mask)
    shown = min(count, lesions)
    if not shown:
        raise InputError(f"{mask_file}: no lesion in it. Give a mask with at least one lesion.")
    brain, labels = view(pair.brain), view(labels)
    visits = brightness_of_both((view(pair.time01.array), view(pair.time02.array)), brain)
    reference = view(pair.targets[0]) if has_reference else np.zeros_like(labels)
    figure = Figure(figsize=(INCHES * shown, 3.15 * INCHES), dpi=80, facecolor="white")
    axes = figure.subplots(3, shown, squeeze=False)
    figure.subplots_adjust(0, 0, 1, 0.95, wspace=0.02, hspace=0.02)
    for number in range(1, shown + 1):
        here = labels == number
        height = int(here.sum(axis=(1, 2)).argmax())
        centre = np.argwhere(here[height]).mean(axis=0)
        volume_mm3 = here.sum() * voxel_mm3(pair.time01.spacing_mm)
        column = axes[:, number - 1]
        column[0].set_title(f"{volume_mm3:.0f} mm3", fontsize=8)
        for place, visit in zip(column, (visits[0], visits[1], visits[1]), strict=True):
            _show(place, visit[height], centre, view.pixel_mm)
        for array, color, style in (
            (reference[height], REFERENCE, "dashed"), (labels[height] > 0, PREDICTED, "solid"),
        ):  # fmt: skip
            if array.any():
                column[2].contour(array, [0.5], colors=color, linewidths=1, linestyles=style)
    return figure


def _show(place, picture: np.ndarray, centre: np.ndarray, pixel_mm) -> None:
    row_mm, column_mm = pixel_mm
    place.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
    row, column = centre
    place.set_xlim(column - AROUND_MM / column_mm, column + AROUND_MM / column_mm)
    place.set_ylim(row + AROUND_MM / row_mm, row - AROUND_MM / row_mm)
    place.set_axis_off()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient_folder", type=Path, help="a pair in the MSSEG-2 layout")
    parser.add_argument("mask", type=Path, help="mask of lesions on the grid of the pair")
    parser.add_argument("picture", type=Path, help="PNG file to write")
    parser.add_argument(
        "--lesions", type=int, default=6, metavar="N", help="largest number of columns; default: 6"
    )
    flags = parser.parse_args()
    draw(flags.patient_folder, flags.mask, flags.lesions).savefig(flags.picture)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.pictures: {error}")
