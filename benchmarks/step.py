"""Time one training step and one forward pass of `configs/msseg2.py`, per patch pair.

Usage: python -m benchmarks.step [--batch_size 2] [--patch_size 56] [--repeats 5] [--give_back]
The patches are random and no loader is used, so only the compiled functions are timed. Prints the
median, and also the shortest time, which is less affected by other work on the machine.
"""

import argparse
import resource
import statistics
import time

from msseg_jax.system.machine import keep_freed_memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batch_size", type=int, default=2, help="patch pairs on all devices; default: 2"
    )
    parser.add_argument("--patch_size", type=int, default=56, help="voxels; default: 56")
    parser.add_argument("--repeats", type=int, default=5, help="calls of each; default: 5")
    parser.add_argument(
        "--give_back", action="store_true", help="return freed memory to the system"
    )
    flags = parser.parse_args()
    if not flags.give_back:
        keep_freed_memory()
    import jax
    import numpy as np

    from msseg_jax.configuration.files import find, read
    from msseg_jax.inference.forward import compile_forward
    from msseg_jax.network.model import SiameseMPUNet
    from msseg_jax.training.devices import AXIS, on_every_device, parallel_step
    from msseg_jax.training.step import create_state, train_step

    config = read(find("msseg2"))
    devices = jax.local_devices()
    model = SiameseMPUNet(config.model, AXIS)
    state = create_state(model, lambda step: config.train.learning_rate)
    state = on_every_device(state, devices)
    step = parallel_step(lambda state, batch, _: train_step(state, batch, seed=0), devices)
    forward, variables = compile_forward(model), jax.device_get(state.model_variables)

    generator = np.random.default_rng(0)
    shape = (flags.batch_size, *(flags.patch_size,) * 3)
    visits = generator.standard_normal((2, *shape, 1), np.float32)
    batch = {
        "time01": visits[0],
        "time02": visits[1],
        "targets": (generator.random((*shape, config.model.targets)) > 0.98).astype(np.uint8),
        "patch_ids": np.arange(flags.batch_size, dtype=np.int32),
    }

    def train():  # keeps the new state, because the step reuses the memory of the old one
        nonlocal state
        state, metrics, _ = step(state, batch)
        return metrics

    def timed(function):
        start = time.perf_counter()
        jax.block_until_ready(function())
        return time.perf_counter() - start

    print(f"jax {jax.__version__}, {len(devices)} x {devices[0].device_kind}, {shape} patch pairs")
    for name, function in (
        ("training step", train),
        ("forward", lambda: forward(variables, *visits)),
    ):
        first_s = timed(function)
        times = [timed(function) / flags.batch_size for _ in range(flags.repeats)]
        print(
            f"{name:<13}  {1e3 * statistics.median(times):8.2f} ms per patch pair (shortest "
            f"{1e3 * min(times):.2f}); with compilation {first_s:.0f} s"
        )
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kiB on Linux
    print(f"peak memory    {peak_gib:8.2f} GiB of this process")


if __name__ == "__main__":
    main()
