"""Draw all random numbers for a patch, before any change is applied to it."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from msseg_jax.configuration.sections import AugmentationSettings
from msseg_jax.data.augmentation.appearance import Appearance
from msseg_jax.data.augmentation.smooth import control_points
from msseg_jax.data.augmentation.spatial import Misregistration, Spatial
from msseg_jax.data.patches import AUGMENTATION_STREAM


@dataclass(frozen=True)
class Augmentation:
    """The changes drawn for one patch."""

    spatial: Spatial
    appearances: tuple[Appearance, Appearance]  # of time01 and time02


def draw_augmentation(settings: AugmentationSettings, seed: int, patch_id: int) -> Augmentation:
    """Draw the augmentation of a patch. The result depends only on the arguments.

    All numbers come from one generator, one after the other, so changing one probability also
    changes everything that is drawn after it. The control values of the elastic and bias fields
    are uniform up to their limits. The fields are weighted means of control values, so they stay
    well below these limits (see `smooth`).
    """
    generator = np.random.default_rng((seed, AUGMENTATION_STREAM, patch_id))
    spatial = _draw_spatial(settings, generator)
    # Both visits get the same axis, because slices of a patient's scans usually run the same way.
    slice_axis = int(generator.integers(3))
    time01, time02 = (_draw_appearance(settings, slice_axis, generator) for _ in range(2))
    return Augmentation(spatial, (time01, time02))


def _draw_spatial(settings: AugmentationSettings, generator: np.random.Generator) -> Spatial:
    flip_d, flip_h, flip_w = (bool(generator.random() < p) for p in settings.flip_probability)
    matrix = displacement = misregistration = None
    if generator.random() < settings.affine_probability:
        scales = [_around_one(settings.scale, generator) for _ in range(3)]
        matrix = _draw_rotation(settings.rotation_degrees, generator) @ np.diag(scales)
    if generator.random() < settings.elastic_probability:
        limit = settings.elastic
        n = control_points(settings.elastic_cells)
        displacement = generator.uniform(-limit, limit, (3, n, n, n)).astype(np.float32)
    if generator.random() < settings.misregistration_probability:
        length = generator.uniform(0, settings.misregistration_voxels)
        misregistration = Misregistration(
            _draw_rotation(settings.misregistration_degrees, generator),
            length * _draw_direction(generator),
        )
    return Spatial((flip_d, flip_h, flip_w), matrix, displacement, misregistration)


def _draw_appearance(
    settings: AugmentationSettings, slice_axis: int, generator: np.random.Generator
) -> Appearance:
    drawn = Appearance(slice_axis=slice_axis, zero_signal=settings.zero_signal)
    if generator.random() < settings.gamma_probability:
        drawn = replace(drawn, gamma=_around_one(settings.gamma, generator))
    if generator.random() < settings.gain_probability:
        drawn = replace(drawn, gain=_around_one(settings.gain, generator))
    if generator.random() < settings.bias_probability:
        n = control_points(settings.bias_cells)
        limit = np.log1p(settings.bias)
        bias = generator.uniform(-limit, limit, (n, n, n)).astype(np.float32)
        drawn = replace(drawn, bias=bias)
    if generator.random() < settings.blur_probability:
        drawn = replace(drawn, blur_voxels=generator.uniform(0, settings.blur_voxels))
    if generator.random() < settings.slice_probability:
        drawn = replace(drawn, slice_voxels=generator.uniform(1, settings.slice_voxels))
        drawn = replace(drawn, slice_phase=generator.random())
    if generator.random() < settings.noise_probability:
        drawn = replace(drawn, noise=generator.uniform(0, settings.noise))
        drawn = replace(drawn, noise_seed=int(generator.integers(2**63)))
    return drawn


def _around_one(limit: float, generator: np.random.Generator) -> float:
    """Draw a factor from 1 / (1 + limit) to 1 + limit, uniform on a log scale."""
    return float(np.exp(generator.uniform(-1, 1) * np.log1p(limit)))


def _draw_rotation(degrees: float, generator: np.random.Generator) -> np.ndarray:
    """Draw a rotation, (3, 3), about a random axis, with an angle uniform from 0 to `degrees`."""
    angle = np.radians(generator.uniform(0, degrees))
    return Rotation.from_rotvec(angle * _draw_direction(generator)).as_matrix()


def _draw_direction(generator: np.random.Generator) -> np.ndarray:
    """Draw a unit vector, (3,), with a uniformly distributed direction."""
    vector = generator.standard_normal(3)
    return vector / np.linalg.norm(vector)
