"""Time the cutting of one patch without augmentation, with each transform, and with all of them.

Usage: python -m benchmarks.augmentation [--patches 50]
Patches are cut from one random patient of realistic size with five targets. The patch size and the
limits of the transforms are those of `configs/msseg2_augmented.py`. A row for one transform applies
it to every patch (to both visits, if it acts on single visits) and applies no other transform. The
row "all, as configured" draws every transform with its configured probability. Times are processor
times, because the machine may be busy with other work. `benchmarks.loader` measures the rate of
whole batches.
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

SHAPE = (200, 220, 180)  # voxels of 0.8 mm: the size of a brain
TRANSFORMS = (
    "flip", "affine", "elastic", "misregistration", "gamma", "gain", "bias", "blur", "slice",
    "noise",
)  # fmt: skip


def random_patient(folder: Path, targets: int) -> None:
    """Write a cache entry: an ellipsoidal brain of noise with one new lesion."""
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
    np.save(folder / "known.npy", np.ones(targets, bool))
    np.save(folder / "lesion_counts.npy", np.array([lesion.sum()], np.int64))


def with_only(settings: AugmentationSettings, transform: str | None) -> AugmentationSettings:
    """Return settings that always apply `transform` and never apply the others.

    Args:
      transform: one of TRANSFORMS; None applies none.
    """
    names = [f"{name}_probability" for name in TRANSFORMS]
    never = dict.fromkeys(names, 0.0) | {"flip_probability": (0.0,) * 3}
    if transform:
        never[f"{transform}_probability"] = (1.0,) * 3 if transform == "flip" else 1.0
    return settings.model_copy(update=never)


def interpolation_ms(size: int) -> tuple[float, float]:
    """Return the median times in ms of `interpolate` and of SciPy, for a rotated patch."""
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
    parser.add_argument("--patches", type=int, default=50, help="patches to time; default: 50")
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

        def spent_ms(chosen) -> tuple[float, float]:
            """Return the median and the mean time of a patch."""
            times = []
            for k, corner in enumerate(corners):
                start = time.process_time()
                cut_augmented(patient, corner, size, draw_augmentation(chosen, seed, k))
                times.append(1e3 * (time.process_time() - start))
            return statistics.median(times), statistics.mean(times)

        print(f"{'one patch':<24}{'median, ms':>12}{'mean, ms':>12}")
        spent_ms(with_only(settings, None))  # so that the volume is in memory afterwards
        for transform in (None, *TRANSFORMS):
            median, mean = spent_ms(with_only(settings, transform))
            print(f"{transform or 'no transform':<24}{median:>12.1f}{mean:>12.1f}", flush=True)
        median, mean = spent_ms(settings)
        print(f"{'all, as configured':<24}{median:>12.1f}{mean:>12.1f}", flush=True)

        ours, scipys = interpolation_ms(size)
        print(f"interpolating a visit: {ours:.1f} ms, with SciPy's map_coordinates {scipys:.1f} ms")


if __name__ == "__main__":
    main()
