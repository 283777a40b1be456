"""Compare the speed of training as launch.py runs it with PyTorch and with the device's limit.

Usage: python -m benchmarks.train [--data ROOT] [--batch_size 40] [--steps 50] [--repeats 5]
Prints the time of a step, the patches per second and the share of the limit. This project is
measured in float32 and bfloat16, with patches cut on the host and on the device. PyTorch runs the
same network on the same device, with one batch that is already there. It is measured with both
memory orders that it supports and, with --compile, also with `torch.compile`; this project is
compared with the fastest of them. All take turns in one process, and each figure is a median.

PyTorch needs the extra `benchmarks`. If it is not installed or does not see the device, only this
project is measured. `benchmarks.roofline` explains the limit.
"""

import argparse
import os
import statistics
import time
from functools import partial
from itertools import islice, product
from pathlib import Path

DTYPES = ("float32", "bfloat16")
RESIDENT = {"host": False, "device": True}  # where patches are cut: config.data.device_resident
# Memory orders of PyTorch. Which one is faster depends on the device and the dtype.
TORCH_ORDERS = {"channels last": "channels_last_3d", "channels first": "contiguous_format"}
SLOW_TORCH = "2.9.0"  # its 3-D convolutions are much slower than those of other versions
TRACED_STEPS = 3
PAPER_PATIENTS = 40


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
    parser.add_argument("--batch_size", type=int, help="patch pairs; default: 40, on a CPU 4")
    parser.add_argument("--workers", type=int, help="threads that cut patches; default: 2")
    parser.add_argument(
        "--dtypes", default=",".join(DTYPES),
        help="compute dtypes, separated by commas; default: float32,bfloat16",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="steps of a turn; default: 50, on a CPU 2")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each; default: 5")
    parser.add_argument(
        "--bandwidth_gb_s", type=float, help="peak memory bandwidth of the device, 1e9 bytes/s"
    )
    parser.add_argument(
        "--peak_tflop_s", type=float, help="peak arithmetic of the device, 1e12 operations/s"
    )
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction,
        help="also measure torch.compile; default: on, but off on a CPU, where it takes minutes",
    )  # fmt: skip
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write traces of this project's steps there"
    )
    flags = parser.parse_args()
    # By default JAX reserves three quarters of a GPU's memory when it starts. PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")
    from benchmarks.data import describe, training_patients
    from msseg_jax.configuration.files import find, read
    from msseg_jax.system.machine import keep_freed_memory

    config = paper = read(find("msseg2"))
    with training_patients(config, flags.data, flags.phantoms, flags.cache) as data:
        keep_freed_memory()  # as launch.py does; it affects PyTorch, too
        import jax

        device = jax.local_devices()[0]
        on_cpu = device.platform == "cpu"
        batch_size = flags.batch_size or (4 if on_cpu else 40)
        settings = config.train.model_copy(update={"batch_size": batch_size})
        config = config.model_copy(update={"train": settings})
        config = config.with_data(workers=flags.workers or config.data.workers)
        flags.steps = flags.steps or (2 if on_cpu else 50)
        flags.compile = not on_cpu if flags.compile is None else flags.compile
        flags.dtypes = flags.dtypes.split(",")
        print(
            f"jax {jax.__version__}, {device.device_kind}, {describe(data, flags.data)}, "
            f"batches of {config.train.batch_size} pairs of {config.data.patch_size}^3 patches, "
            f"cut by {config.data.workers} threads"
        )
        trainings = our_trainings(config, data, device, flags)
        trainings |= torch_trainings(config, device, flags)
        step_s = take_turns(trainings, flags.steps, flags.repeats)
        limits = {dtype: limit_s(config, device, dtype, flags) for dtype in flags.dtypes}
    report(trainings, step_s, limits, config.train.batch_size, paper_patches(paper))


def take_turns(trainings: dict, steps: int, repeats: int) -> dict:
    """Return the median seconds per step of each training.

    They take turns, so that other work on the machine slows all of them alike.
    """
    seconds = {name: [] for name in trainings}
    for _ in range(repeats):
        for name, training in trainings.items():
            seconds[name].append(training.run(steps) / steps)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(trainings, step_s, limits, batch_size, patches):
    """Print the table, and the ratios to the fastest PyTorch."""
    print(
        f"\n{'':<50}{'step, ms':>10}{'patches/s':>11}{'data wait':>11}{'of limit':>10}"
        f"{'paper, h':>10}"
    )
    for (dtype, name), seconds in step_s.items():
        waited = trainings[dtype, name].waited_share
        limit = limits[dtype]
        print(
            f"{f'{dtype}, {name}':<50}{seconds * 1e3:>10.1f}{batch_size / seconds:>11.2f}"
            f"{'-' if waited is None else f'{waited:.1%}':>11}"
            f"{'-' if limit is None else f'{limit / seconds:.1%}':>10}"
            f"{patches / batch_size * seconds / 3600:>10.1f}"
        )
    print(f"(paper, h: hours for the {patches:,} patches of the paper's training at this rate)")
    for dtype in limits:
        seconds = {name: s for (own_dtype, name), s in step_s.items() if own_dtype == dtype}
        peers = [name for name in seconds if name.startswith("PyTorch")]
        fastest = min(peers, key=seconds.get, default=None)
        for name in [name for name in seconds if peers and name not in peers]:
            ratio = seconds[name] / seconds[fastest]
            print(f"{f'{dtype}, {name} / {fastest}':<72}{ratio:>8.2f}")


def paper_patches(paper) -> int:
    """Return the number of patches of the paper's whole training."""
    from msseg_jax.training.schedule import Schedule

    schedule = Schedule.of(paper.train, paper.data.patches_per_patient, PAPER_PATIENTS)
    return schedule.total * paper.train.batch_size


def limit_s(config, device, dtype, flags) -> float | None:
    """Print and return the limit of a step on this device, in s; None if it is not known."""
    from benchmarks import roofline

    layers = roofline.count_layers(config, config.train.batch_size, dtype)
    moved = sum(layer.training_bytes for layer in layers)
    operations = sum(layer.training_operations for layer in layers)
    print(
        f"\n{dtype}: a step moves {moved / 1e9:.2f} GB and takes {operations / 1e9:.0f} GFLOP",
        end="",
    )
    known, source = roofline.known_device(device.device_kind, dtype), "figures of its maker"
    if known is None and device.platform == "cpu":
        known, source = roofline.measured_cpu(), "as measured, with arithmetic in float32"
    bandwidth = flags.bandwidth_gb_s or (known and known.bandwidth_gb_s)
    peak = flags.peak_tflop_s or (known and known.peak_tflop_s)
    if not bandwidth or not peak:
        print(
            f"; the limits of {device.device_kind} are not known. Give both --bandwidth_gb_s and "
            "--peak_tflop_s."
        )
        return None
    if flags.bandwidth_gb_s or flags.peak_tflop_s:
        source = "as given by flags"
    least = roofline.Device(bandwidth, peak).least_seconds(layers)
    print(
        f"; at {bandwidth:.4g} GB/s and {peak:.4g} TFLOP/s ({source}) this takes at least "
        f"{least * 1e3:.4g} ms",
        end="",
    )
    return least


# -------------------------------------------------------------------------------------- ours


def our_trainings(config, data, device, flags) -> dict:
    """Return the trainings of this project by (compute dtype, name).

    Each has made its first step, so it is compiled.
    """
    from msseg_jax.training.gpu_forms import choose_forms

    trainings = {}
    for dtype in flags.dtypes:
        train = config.train.model_copy(update={"compute_dtype": dtype})
        choose_forms(config.model_copy(update={"train": train}), 10**6)  # as a long training
        for place in RESIDENT:
            name = f"ours, patches cut on the {place}"
            training = OurTraining(config, data, device, dtype, place)
            print(f"{dtype}, {name}: first step after {training.first_s:.1f} s", flush=True)
            if flags.profile:
                training.trace(flags.profile / f"{dtype}-{place}")
            trainings[dtype, name] = training
    return trainings


class OurTraining:
    """The training loop of `msseg_jax.training`, without log, validation and checkpoints."""

    def __init__(self, config, data, device, dtype, place):
        from msseg_jax.data.loader import load_batches
        from msseg_jax.network.model import SiameseMPUNet
        from msseg_jax.system.errors import InputError
        from msseg_jax.training.batches import training_batches
        from msseg_jax.training.devices import AXIS, on_every_device, parallel_step
        from msseg_jax.training.objective import Objective
        from msseg_jax.training.step import create_state, loaded_step

        start = time.perf_counter()
        config = config.with_data(device_resident=RESIDENT[place])
        model = SiameseMPUNet(config.model, AXIS, dtype)
        state = create_state(model, lambda step: config.train.learning_rate)
        steps = 10**6  # more than are ever made
        batches, self._volumes = training_batches(config, data, steps, [device])
        if RESIDENT[place] and not self._volumes:
            raise InputError(
                "the data do not fit into the device's memory. Give fewer patients with --data or "
                "--phantoms."
            )
        self._step = parallel_step(
            partial(
                loaded_step, seed=config.seed, patch_size=config.data.patch_size,
                objective=Objective.of(config),
            ),
            [device],
        )  # fmt: skip
        self._state = on_every_device(state, [device])
        self._batches = load_batches(batches, 0, config.data.workers)
        self._cut_ahead = config.data.workers + 1
        self._waited_s = self._timed_s = 0.0
        self._train(1)
        self.first_s = time.perf_counter() - start

    def run(self, steps: int) -> float:
        """Make `steps` steps, and return how many seconds they take."""
        # Skip the batches that were cut in advance while the other trainings took their turns.
        for _ in islice(self._batches, self._cut_ahead):
            pass
        start = time.perf_counter()
        self._waited_s += self._train(steps)
        seconds = time.perf_counter() - start
        self._timed_s += seconds
        return seconds

    @property
    def waited_share(self) -> float | None:
        """Share of the measured time that the loop waited for batches."""
        return self._waited_s / self._timed_s

    def trace(self, folder: Path):
        """Write a trace of a few steps for TensorBoard or Perfetto."""
        import jax

        with jax.profiler.trace(folder):
            self._train(TRACED_STEPS)

    def _train(self, steps: int) -> float:
        """Make `steps` steps, and return how many seconds were spent waiting for batches.

        As in a real training, the loop runs at most one step ahead of the device.
        """
        import jax

        waited_s, previous = 0.0, ()
        for _ in range(steps):
            start = time.perf_counter()
            batch = next(self._batches)
            waited_s += time.perf_counter() - start
            self._state, metrics, _ = self._step(self._state, batch, self._volumes)
            jax.block_until_ready(previous)
            previous = metrics
        jax.block_until_ready(previous)
        return waited_s


# -------------------------------------------------------------------------------------- PyTorch


def torch_trainings(config, device, flags) -> dict:
    """Return the trainings of PyTorch by (compute dtype, name), like `our_trainings`.

    The result is empty if PyTorch is not installed or does not see the device.
    """
    try:
        import torch
    except ModuleNotFoundError:
        print("PyTorch is not installed, so only this project is measured.")
        return {}
    from msseg_jax.system.machine import processors

    kind = "cpu" if device.platform == "cpu" else "cuda"
    if kind == "cuda" and not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} finds no GPU, so only this project is measured.")
        return {}
    torch.set_num_threads(processors())
    if torch.__version__.startswith(SLOW_TORCH):
        print(f"PyTorch {torch.__version__} is slow. Install another version to compare with it.")
        return {}
    print(f"PyTorch {torch.__version__}, {processors()} threads")
    trainings = {}
    for dtype in flags.dtypes:
        for order, compiled in product(TORCH_ORDERS, (False, True)[: 1 + flags.compile]):
            name = f"PyTorch, {order}" + ", compiled" * compiled
            try:
                training = TorchTraining(config, kind, dtype, TORCH_ORDERS[order], compiled)
            except Exception as error:  # torch.compile may raise anything; continue with the others
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"{dtype}, {name}: skipped, because its first step failed ({why})")
                continue
            print(f"{dtype}, {name}: first step after {training.first_s:.1f} s", flush=True)
            trainings[dtype, name] = training
    return trainings


class TorchTraining:
    """Training steps of the PyTorch network on one random batch, which is already on the device."""

    waited_share = None  # there is no loader to wait for

    def __init__(self, config, kind: str, dtype: str, order: str, compiled: bool):
        import torch

        from benchmarks.peers import Peer

        start = time.perf_counter()
        torch.backends.cudnn.benchmark = True  # pick the fastest convolution, as XLA does
        # XLA computes float32 convolutions in TF32 by default if the GPU has it. Let PyTorch do so.
        torch.backends.cudnn.allow_tf32 = True
        torch.manual_seed(0)
        shape = (config.train.batch_size, 1, *(config.data.patch_size,) * 3)
        place = {"device": kind, "memory_format": getattr(torch, order)}
        self._visits = [torch.randn(shape).to(**place) for _ in range(2)]
        targets = torch.rand(shape[0], config.model.targets, *shape[2:]) < 0.02
        self._targets = targets.float().to(**place)
        peer = Peer(config.model).to(**place).train()
        self._optimiser = torch.optim.Adam(peer.parameters(), config.train.learning_rate)
        self._forward = torch.compile(peer) if compiled else peer
        self._autocast = partial(torch.autocast, kind, torch.bfloat16, enabled=dtype != "float32")
        self._wait = torch.cuda.synchronize if kind == "cuda" else lambda: None
        self.run(1)
        self.first_s = time.perf_counter() - start

    def run(self, steps: int) -> float:
        """Make `steps` steps, and return how many seconds they take."""
        start = time.perf_counter()
        for _ in range(steps):
            self._optimiser.zero_grad(set_to_none=True)
            with self._autocast():
                found = self._forward(*self._visits)
            found, expected = found.float(), self._targets
            both, total = (found * expected).sum(), found.sum() + expected.sum()
            (-2 * (both + 1e-5) / (total + 1e-5)).backward()
            self._optimiser.step()
        self._wait()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
