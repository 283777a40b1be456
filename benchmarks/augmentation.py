"""Time the cutting of one patch, plain and augmented: each transform alone, then the configuration.

Usage: python -m benchmarks.augmentation [--patches 50]
One random patient of real size, five targets, patches and limits of `configs/msseg2.py`. Each
transform alone is done to every patch (to both visits, where it is of a visit); the whole as often
as the configuration says. Processor time, as a machine may do other work as well. The rate of
whole batches is in `benchmarks.loader`.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from msseg_jax.configuration.files import find, read
from msseg_jax.configuration.sections import AugmentationSettings
from msseg_jax.data.augmentation import cut_augmented, draw_augmentation
from msseg_jax.data.augmentation.spatial import Spatial, interpolate, place_visits
from msseg_jax.data.cache import open_patient
from msseg_jax.data.loader import Places, Sampling
from msseg_jax.data.packing import pack_images, pack_targets
from msseg_jax.system.machine import keep_freed_memory

SHAPE = (200, 220, 180)  # voxels, of a brain at 0.8 mm
TRANSFORMS = (
    "flip", "affine", "elastic", "misregistration", "gamma", "gain", "bias", "blur", "slice",
    "noise",
)  # fmt: skip


def random_patient(folder: Path, targets: int) -> None:
    """An ellipsoidal brain of noise, and one new lesion, as the cache holds a patient."""
    generator = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij", sparse=True)
    brain = sum(axis**2 for axis in axes) < 1
    lesion = np.zeros(SHAPE, bool)
    lesion[90:98, 100:110, 60:70] = True
    np.save(folder / "images.npy", pack_images(generator.normal(size=(2, *SHAPE)) * brain))
    np.save(folder / "targets.npy", pack_targets(np.stack([lesion] * targets)))
    np.save(folder / "brain.npy", brain)
    np.save(folder / "lesion_voxels.npy", np.argwhere(lesion).astype(np.int32))
    np.save(folder / "affine.npy", np.diag([0.8, 0.8, 0.8, 1]))


def alone(settings: AugmentationSettings, transform: str | None) -> AugmentationSettings:
    """Return the settings with one transform always and the others never."""
    names = [f"{name}_probability" for name in TRANSFORMS]
    never = dict.fromkeys(names, 0.0) | {"flip_probability": (0.0,) * 3}
    if transform:
        never[f"{transform}_probability"] = (1.0,) * 3 if transform == "flip" else 1.0
    return settings.model_copy(update=never)


def interpolation_ms(size: int) -> tuple[float, float]:
    """Medians of `interpolate` and of SciPy's function, at the places of a patch that is turned."""
    spatial = Spatial(matrix=Rotation.from_rotvec((0.1, 0.1, 0.1)).as_matrix())
    box, _ = place_visits((0, 0, 0), size, spatial)
    volume = np.random.default_rng(0).normal(size=box.shape).astype(np.float32)
    times = {interpolate: [], partial(map_coordinates, order=1): []}
    for _ in range(15):
        for function, taken in times.items():
            start = time.process_time()
            function(volume, box.places)
            taken.append(1e3 * (time.process_time() - start))
    return tuple(statistics.median(taken) for taken in times.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=50, help="of which medians are taken")
    flags = parser.parse_args()
    keep_freed_memory()  # as launch.py does
    config = read(find("msseg2_augmented"))
    settings = config.augmentation
    size, seed = config.data.patch_size, config.seed
    with tempfile.TemporaryDirectory() as folder:
        random_patient(Path(folder), config.model.targets)
        sampling = Sampling(seed, size, config.data.lesion_patch_probability)
        places = Places([("random", Path(folder))], sampling)
        patient = open_patient("random", Path(folder))
        corners = [places.of(k)[1] for k in range(flags.patches)]

        def spent_ms(chosen) -> tuple[float, float]:  # median, mean
            times = []
            for k, corner in enumerate(corners):
                start = time.process_time()
                cut_augmented(patient, corner, size, draw_augmentation(chosen, seed, k))
                times.append(1e3 * (time.process_time() - start))
            return statistics.median(times), statistics.mean(times)

        print(f"{'of one patch':<24}{'median, ms':>12}{'mean, ms':>12}")
        spent_ms(alone(settings, None))  # the volume's first reading
        for transform in (None, *TRANSFORMS):
            median, mean = spent_ms(alone(settings, transform))
            print(f"{transform or 'nothing drawn':<24}{median:>12.1f}{mean:>12.1f}", flush=True)
        median, mean = spent_ms(settings)
        print(f"{'the whole configuration':<24}{median:>12.1f}{mean:>12.1f}", flush=True)

        ours, scipys = interpolation_ms(size)
        print(f"one interpolation of a visit: {ours:.1f} ms, SciPy's map_coordinates {scipys:.1f}")


if __name__ == "__main__":
    main()
