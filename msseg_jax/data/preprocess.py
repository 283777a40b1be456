"""Preprocess a checked pair for the network: resample it, crop it to the brain, normalise it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike
from pydantic import NonNegativeFloat, model_validator

from msseg_jax.configuration.section import Section
from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.intensity import (
    fit_landmarks,
    histogram_deviation,
    measure_percentiles,
    normalise,
)
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.volumes.canonical import Reordering
from msseg_jax.volumes.grids import bounding_box
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.resampling import Resampling, resampling_to


class Preprocessing(Section):
    """Values that were fitted on the training patients. They are stored with the model."""

    settings: PreprocessingSettings
    landmarks: tuple[float, ...]  # standard intensity of each percentile
    deviation: NonNegativeFloat  # largest deviation of a training histogram from the landmarks

    @model_validator(mode="after")
    def _check_landmarks(self) -> Self:
        if len(self.landmarks) != len(self.settings.percentiles):
            raise ValueError(
                f"the preprocessing has {len(self.landmarks)} landmarks; expected "
                f"{len(self.settings.percentiles)}, one for each percentile"
            )
        # Some landmarks may be equal, because percentiles of an image may be, but not all.
        if (
            list(self.landmarks) != sorted(self.landmarks)
            or self.landmarks[0] == self.landmarks[-1]
        ):
            raise ValueError(f"landmarks is {self.landmarks}; expected ascending numbers")
        return self

    def save(self, path: Path) -> None:
        """Write the values as JSON."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the values that `save` wrote.

        Raises:
          InputError: The file is missing or damaged.
        """
        return cls.of(read_json(path), str(path), complete=True)


@dataclass(frozen=True)
class Resampled:
    """A pair on the isotropic grid, in the canonical order, cropped to the brain's bounding box."""

    images: np.ndarray  # (2, D, H, W) float32, time01 and time02
    brain: np.ndarray  # (D, H, W) bool
    targets: np.ndarray  # (T, D, H, W) uint8
    known: np.ndarray  # (T,) bool, as in `Pair`
    affine: np.ndarray  # (4, 4), voxel indices of the crop to scanner mm
    reordering: Reordering  # between the order of axes in the files and the canonical one
    resampling: Resampling  # between the reordered grid of the files and the isotropic grid
    box: tuple[slice, slice, slice]  # position of the crop in the whole isotropic grid

    def to_file_grid(self, array: np.ndarray) -> np.ndarray:
        """Resample a map (D, H, W) float32 to the grid of the files, linearly, with 0 outside."""
        whole = np.zeros(self.resampling.new_shape, dtype=np.float32)
        whole[self.box] = array
        return self.reordering.backward(self.resampling.backward(whole))


def resample(patient: Patient, pair: Pair, settings: PreprocessingSettings) -> Resampled:
    """Resample a pair to the isotropic grid, in the canonical order, and crop it to the brain.

    Images are interpolated linearly. Masks are taken from the nearest voxel.

    Raises:
      InputError: The brain is smaller than a patch along some axis, or the voxels are so large
        that the isotropic grid would not fit into memory.
    """
    reordering = Reordering(pair.time01.affine, pair.brain.shape)
    brain = reordering.forward(pair.brain)
    try:
        resampling = resampling_to(
            settings.spacing_mm, brain.shape, reordering.canonical_spacing_mm
        )
    except InputError as error:
        raise InputError(f"{patient.time01}: {error}") from error
    brain = resampling.forward_labels(brain)
    box = bounding_box(brain)  # empty if a brain of a few voxels falls between the new voxels
    sides = [s.stop - s.start for s in box]
    if min(sides) < settings.patch_size:
        raise InputError(
            f"{patient.brain_mask or patient.time01}: the brain measures {tuple(sides)} voxels of "
            f"{settings.spacing_mm} mm, which is smaller than a patch. It must measure at least "
            f"{settings.patch_size} voxels along each axis. Check the mask and the voxel spacing."
        )
    visits = [reordering.forward(visit) for visit in pair.filled]
    images = [resampling.forward(visit)[box] for visit in visits]
    labels = [reordering.forward(target) for target in pair.targets]
    targets = [resampling.forward_labels(label)[box] for label in labels]
    affine = resampling.new_affine(reordering.canonical_affine)
    return Resampled(
        np.stack(images),
        brain[box],
        np.stack(targets) if targets else np.zeros((0, *sides), dtype=np.uint8),
        pair.known,
        affine @ nib.affines.from_matvec(np.eye(3), [side.start for side in box]),
        reordering,
        resampling,
        box,
    )


def resample_by_each(
    patient: Patient, pair: Pair, settings: Iterable[PreprocessingSettings]
) -> dict[PreprocessingSettings, Resampled]:
    """Resample a pair with each of several settings, but only once for equal settings."""
    return {one: resample(patient, pair, one) for one in dict.fromkeys(settings)}


def histograms(
    patient: Patient, resampled: Resampled, settings: PreprocessingSettings
) -> np.ndarray:
    """Return the percentiles of both visits inside the brain, (2, P).

    Raises:
      InputError: A visit is constant inside the brain.
    """
    measured = []
    for path, image in zip((patient.time01, patient.time02), resampled.images, strict=True):
        try:
            measured.append(measure_percentiles(image, resampled.brain, settings.percentiles))
        except InputError as error:
            raise InputError(f"{path}: {error} Export it again.") from error
    return np.stack(measured)


def fit(measured: Iterable[ArrayLike], settings: PreprocessingSettings) -> Preprocessing:
    """Fit landmarks on all visits. Both visits of a patient share them.

    Args:
      measured: the histograms of each training patient, (2, P).
    """
    visits = [visit for patient in measured for visit in np.asarray(patient)]
    landmarks = fit_landmarks(visits)
    deviation = max(histogram_deviation(visit, landmarks) for visit in visits)
    return Preprocessing(
        settings=settings, landmarks=tuple(map(float, landmarks)), deviation=deviation
    )


def apply(preprocessing: Preprocessing, patient: Patient, resampled: Resampled) -> np.ndarray:
    """Return the normalised visits, (2, D, H, W) float32, with BACKGROUND outside the brain.

    Raises:
      InputError: A visit is constant inside the brain.
    """
    landmarks = np.asarray(preprocessing.landmarks)
    measured = histograms(patient, resampled, preprocessing.settings)
    return np.stack(
        [
            normalise(image, resampled.brain, m, landmarks)
            for image, m in zip(resampled.images, measured, strict=True)
        ]
    )
