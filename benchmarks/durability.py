"""Measure what it costs to synchronise files and folders with the disk.

Usage: python -m benchmarks.durability [--folder FOLDER] [--repeats 15]

Each kind of file is written with and without `fsync`, in turn. The figures are medians. They depend
on the disk of FOLDER. The default is a temporary folder.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

from msseg_jax.models.checkpoints import Checkpoints, Progress
from msseg_jax.system.atomic import whole_folder, write_beside

KINDS = {"a record of 1 kB": 1_000, "a mask of 100 kB": 100_000, "a scan of 15 MB": 15_000_000}
ENTRY = (40_000_000, 10_000_000, 10_000_000, 1_000, 200)  # bytes of the files of a cache entry
PARAMETERS = 60_000  # about as many as the network of the paper has


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--repeats", type=int, default=15)
    flags = parser.parse_args()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=flags.folder) as name:
        folder = Path(name)
        for kind, size in KINDS.items():
            content = random.bytes(size)
            write = partial(Path.write_bytes, data=content)
            compare(kind, partial(write_beside, folder / "file", write), flags.repeats)
        content = random.bytes(max(ENTRY))

        def write_entry():
            with whole_folder(folder / "entry", replace=True) as new:
                for number, size in enumerate(ENTRY):
                    (new / f"{number}.npy").write_bytes(content[:size])

        compare(f"a cache entry of {sum(ENTRY) // 10**6} MB", write_entry, flags.repeats)
        model = {"weights": random.normal(size=PARAMETERS).astype(np.float32)}
        with Checkpoints(folder / "last", keep=2) as checkpoints:
            compare(
                "a checkpoint",
                lambda: checkpoints.save(
                    max(checkpoints.steps(), default=0) + 1, model, model, Progress()
                ),
                flags.repeats,
            )


def compare(kind, work, repeats):
    """Print the median time of some work with and without synchronisation.

    The arrays of a checkpoint are synchronised in both cases, because TensorStore does so.
    """
    times_ms = {True: [], False: []}
    nothing = mock.Mock()
    for _ in range(repeats):
        for synchronises, times in times_ms.items():
            patch = mock.patch("msseg_jax.system.durability._sync", nothing)
            start_s = time.perf_counter()
            if synchronises:
                work()
            else:
                with patch:
                    work()
            times.append(1000 * (time.perf_counter() - start_s))
    with_ms, without_ms = (statistics.median(times_ms[kind]) for kind in (True, False))
    print(f"{kind:<24}{without_ms:8.2f} ms without, {with_ms:8.2f} ms with")


if __name__ == "__main__":
    main()
