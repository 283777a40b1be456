"""Compare the training patches per second of this project's loader with TorchIO's Queue.

Usage: python -m benchmarks.loader [--data ROOT] [--repeats 5] [--patches 1280] [--epoch 20000]
A patch is both visits and all targets, 56^3 voxels. This project's loader reads the memory-mapped
cache. It is measured twice: with packed patches, as they are sent to the device, and with patches
unpacked to float32 and uint8 on the host, which is what TorchIO returns. TorchIO holds its volumes
in memory, and cuts several patches from a volume before it takes the next volume. The loaders take
turns, and each figure is a median. TorchIO needs the extra `benchmarks`; without it only this
project's loader is measured.
"""

import argparse
import statistics
import time
import warnings
from itertools import islice
from pathlib import Path

from msseg_jax.system.machine import keep_freed_memory, processors

QUEUE_PATCHES, PATCHES_PER_VOLUME = 320, 80  # of TorchIO: four volumes fill its queue
WORKERS = 2  # processes of TorchIO


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        metavar="ROOT",
        help="patients in the MSSEG-2 layout; default: phantoms",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep the cache there; default: delete it"
    )
    parser.add_argument(
        "--phantoms", type=int, default=4, help="number of phantoms without --data; default: 4"
    )
    parser.add_argument("--batch_size", type=int, default=40, help="patches; default: 40")
    parser.add_argument(
        "--patches", type=int, default=4 * QUEUE_PATCHES, help="patches of a turn; default: 1280"
    )
    parser.add_argument(
        "--epoch", type=int, default=20_000,
        help="patches over which memory is measured; default: 20000; 0 skips this",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="turns of each; default: 5")
    flags = parser.parse_args()
    from benchmarks.data import describe, training_patients
    from msseg_jax.configuration.files import find, read

    config = read(find("msseg2"))
    with training_patients(config, flags.data, flags.phantoms, flags.cache) as data:
        # launch.py does the same at its start; it affects TorchIO, too. Here it comes after the
        # preparation, so that the memory of the preparation is returned to the system first and
        # the memory measured below is that of the loader.
        keep_freed_memory()
        print(
            f"{describe(data, flags.data)}, batches of {flags.batch_size} patches, "
            f"{config.data.workers} threads, {processors()} processors"
        )
        measure(config, data, flags)


def measure(config, data, flags):
    """Print the time of the first batch, the memory over an epoch, and the rates."""
    from msseg_jax.data.loader import PatchBatches, Places, Sampling, Share, load_batches

    def packed():
        settings = config.data
        sampling = Sampling(config.seed, settings.patch_size, settings.lesion_patch_probability)
        # 10**6 steps are more than are ever read.
        return PatchBatches(Places(data.training, sampling), Share(flags.batch_size), 10**6)

    def ours(source):
        return load_batches(source, 0, config.data.workers)

    start = time.perf_counter()
    batches = ours(packed())
    next(batches)
    print(f"first batch after {time.perf_counter() - start:.2f} s")
    if flags.epoch:
        print_memory(batches, flags.epoch // flags.batch_size, flags.batch_size)
    del batches

    ways = {
        "ours, packed": lambda: ours(packed()),
        "ours, unpacked": lambda: ours(Unpacked(packed(), config.model.targets)),
    }
    try:
        subjects = torchio_subjects(config, data)
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed, so only this project's loader is measured.")
    else:
        ways["TorchIO"] = lambda: torchio_batches(config, subjects, flags.batch_size)
    turn = flags.patches // flags.batch_size
    turns = {name: [] for name in ways}
    for _ in range(flags.repeats):
        for name, start_loading in ways.items():
            turns[name].append(rate(start_loading(), turn) * flags.batch_size)
    rates = {name: statistics.median(values) for name, values in turns.items()}
    theirs = rates.get("TorchIO")
    print(f"{'':<16}{'patches/s':>10}{'slowest':>10}{'fastest':>10}{'ours / TorchIO':>16}")
    for name, value in rates.items():
        ratio = f"{value / theirs:>16.1f}" if theirs and name != "TorchIO" else ""
        print(f"{name:<16}{value:>10.0f}{min(turns[name]):>10.0f}{max(turns[name]):>10.0f}{ratio}")


class Unpacked:
    """A source of unpacked batches. The loader's threads read from it, so they also unpack."""

    def __init__(self, source, targets: int):
        self._source, self._targets = source, targets

    def __len__(self):
        return len(self._source)

    def __getitem__(self, step):
        from msseg_jax.data.packing import unpack_batch

        return unpack_batch(self._source[step], self._targets)


def rate(batches, count: int) -> float:
    """Return the batches per second in steady state.

    Before that, as many patches are read as fill TorchIO's queue once.
    """
    first = next(batches)
    warm = -(-QUEUE_PATCHES // len(first["patch_ids"] if "patch_ids" in first else first["time01"]))
    for _ in islice(batches, warm - 1):
        pass
    start = time.perf_counter()
    for _ in islice(batches, count):
        pass
    return count / (time.perf_counter() - start)


def print_memory(batches, steps: int, batch_size: int):
    """Print the memory of this process while an epoch of packed patches is loaded.

    The mapped pages of the cache are listed separately, because the system can free them at any
    time.
    """
    print(f"{'patches':>10}{'own memory, MiB':>18}{'mapped cache, MiB':>20}")
    marks = sorted({min(10, steps), steps // 2, steps})  # the buffers are full after 10 steps
    for step, _ in enumerate(islice(batches, steps), start=1):
        if step in marks:
            own, mapped = memory_mib()
            print(f"{step * batch_size:>10}{own:>18.0f}{mapped:>20.0f}", flush=True)


def memory_mib() -> tuple[float, float]:
    """Return the resident memory of this process on Linux: its own, and that of mapped files."""
    status = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    own, mapped = (int(status[name].split()[0]) / 2**10 for name in ("RssAnon", "RssFile"))  # in kB
    return own, mapped


def torchio_subjects(config, data) -> list:
    """Read the cached patients into TorchIO subjects: float32 images and label maps."""
    import torch
    import torchio

    from msseg_jax.data.cache import open_patient
    from msseg_jax.data.packing import unpack_images, unpack_target

    subjects = []
    for entry in data.training:
        patient = open_patient(*entry)
        images = torch.from_numpy(unpack_images(patient.images))
        maps = {
            f"target_{t}": torchio.LabelMap(
                tensor=torch.from_numpy(unpack_target(patient.targets, t)[None])
            )
            for t in range(config.model.targets)
        }
        subjects.append(
            torchio.Subject(
                time01=torchio.ScalarImage(tensor=images[0:1].clone()),
                time02=torchio.ScalarImage(tensor=images[1:2].clone()),
                **maps,
            )
        )
    return subjects


def torchio_batches(config, subjects: list, batch_size: int):
    """Yield batches of TorchIO endlessly.

    The processes of its queue only load volumes. The patches are cut in this process.
    """
    import torch
    import torchio

    # A patch centre lies in a consensus lesion, or else anywhere in the volume outside of it.
    lesion = config.data.lesion_patch_probability
    sampler = torchio.LabelSampler(config.data.patch_size, "target_0", {0: 1 - lesion, 1: lesion})
    queue = torchio.Queue(
        torchio.SubjectsDataset(subjects * 100), QUEUE_PATCHES, PATCHES_PER_VOLUME, sampler,
        num_workers=WORKERS,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from torch.utils.data.DataLoader(queue, batch_size, num_workers=0)


if __name__ == "__main__":
    main()
