"""Compare the speed of this project with PyTorch, TorchIO and OpenVINO on a CPU.

Usage: python -m benchmarks.cpu [--patient FOLDER] [--model RUN] [--repeats 5]
All use the same network, weights, data and number of threads. Needs the extra `benchmarks`.
The forward pass and the training step of each library take turns in one process. A patient (a
folder in the MSSEG-2 layout, or a phantom without --patient) is segmented from its files to its
mask, by this project and by PyTorch with TorchIO in turn, each time in a new process. All figures
are medians. A ratio is ours / peer, so this project is faster where it is below 1.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

TOLERANCE = 1e-4  # largest difference of probabilities: all must compute the same function


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--patient",
        type=Path,
        metavar="FOLDER",
        help="a pair in the MSSEG-2 layout; default: a phantom",
    )
    parser.add_argument(
        "--model", type=Path, metavar="RUN", help="default: an untrained run, which is as fast"
    )
    parser.add_argument(
        "--patient_repeats",
        type=int,
        default=2,
        help="how often the patient is segmented; default: 2; 0 skips this",
    )
    parser.add_argument("--batch_size", type=int, default=4, help="patch pairs; default: 4")
    parser.add_argument("--patch_size", type=int, default=56, help="voxels; default: 56")
    parser.add_argument("--repeats", type=int, default=5, help="turns of the passes; default: 5")
    flags = parser.parse_args()
    from msseg_jax.system.machine import keep_freed_memory, processors

    keep_freed_memory()  # speeds up the peers in this process, too
    import jax
    import openvino
    import torch

    threads = processors()
    torch.set_num_threads(threads)
    from msseg_jax.network import native

    print(
        f"jax {jax.__version__}, torch {torch.__version__}, openvino {openvino.__version__}, "
        f"{threads} threads, convolution: {native.state()[1]}"
    )
    print(f"{'':<44}{'ours':>9}{'peer':>9}{'ratio':>8}")
    compare_passes(flags, threads)
    if flags.patient_repeats:
        compare_patients(flags)


def compare_passes(flags, threads):
    """Time a forward pass and a training step, per patch pair."""
    import jax
    import numpy as np
    import openvino
    import torch

    from benchmarks.peers import Peer, with_weights
    from msseg_jax.configuration.files import find, read
    from msseg_jax.inference.forward import compile_forward
    from msseg_jax.network.model import SiameseMPUNet
    from msseg_jax.training.devices import AXIS, on_every_device, parallel_step
    from msseg_jax.training.step import create_state, train_step

    config = read(find("msseg2"))
    generator = np.random.default_rng(0)
    shape = (flags.batch_size, *(flags.patch_size,) * 3)
    visits = generator.standard_normal((2, *shape, 1), np.float32)
    targets = (generator.random((*shape, config.model.targets)) < 0.02).astype(np.uint8)

    model = SiameseMPUNet(config.model, AXIS)
    state = create_state(model, lambda step: config.train.learning_rate)
    variables = _spread(state.model_variables, generator)
    forward = compile_forward(model)
    peer = with_weights(Peer(config.model), variables)
    peer = peer.to(memory_format=torch.channels_last_3d).eval()
    pair = [
        torch.from_numpy(np.moveaxis(v, -1, 1)).to(memory_format=torch.channels_last_3d)
        for v in visits
    ]

    def torch_forward():
        with torch.no_grad():
            return peer(*pair)[:, 0].numpy()

    # LATENCY uses all threads for one call. THROUGHPUT would use one thread per call.
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    converted = openvino.convert_model(peer, example_input=tuple(pair))
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    plain_pair = [v.contiguous().numpy() for v in pair]

    passes = {
        "ours": lambda: np.asarray(forward(variables, *visits)),
        "PyTorch": torch_forward,
        "OpenVINO": lambda: next(iter(compiled(plain_pair).values()))[:, 0],
    }
    results = {name: run() for name, run in passes.items()}
    for name in ("PyTorch", "OpenVINO"):
        difference = float(np.abs(results[name] - results["ours"]).max())
        if not difference <= TOLERANCE:
            sys.exit(
                f"python -m benchmarks.cpu: probabilities of {name} and of this project differ by "
                f"{difference:.1e}, but at most {TOLERANCE:.0e} is expected. They do not compute "
                "the same function; check benchmarks/peers.py."
            )
        print(f"{'probabilities, largest difference, ' + name:<44}{difference:>26.1e}")
    seconds = take_turns(passes, flags.repeats)
    for name in ("PyTorch", "OpenVINO"):
        report(f"forward, s per patch pair, {name}", seconds["ours"], seconds[name], len(visits[0]))

    devices = jax.local_devices()
    step = parallel_step(lambda state, batch, _: train_step(state, batch, seed=0), devices)
    batch = {"time01": visits[0], "time02": visits[1], "targets": targets,
             "patch_ids": np.arange(flags.batch_size, dtype=np.int32)}  # fmt: skip
    states = [on_every_device(state, devices)]
    peer.train()
    optimiser = torch.optim.Adam(peer.parameters(), config.train.learning_rate)
    expected = torch.from_numpy(np.moveaxis(targets, -1, 1).astype(np.float32))

    def our_step():
        states[0], metrics, _ = step(states[0], batch)
        jax.block_until_ready(metrics)

    def torch_step():
        optimiser.zero_grad(set_to_none=True)
        found = peer(*pair)
        both, total = (found * expected).sum(), found.sum() + expected.sum()
        (-2 * (both + 1e-5) / (total + 1e-5)).backward()
        optimiser.step()

    passes = {"ours": our_step, "PyTorch": torch_step}
    for run in passes.values():
        run()  # the first call compiles
    seconds = take_turns(passes, flags.repeats)
    name = "training step, s per patch pair, PyTorch"
    report(name, seconds["ours"], seconds["PyTorch"], flags.batch_size)


def compare_patients(flags):
    """Time the segmentation of one patient, from its files to its mask."""
    from benchmarks.patient import KINDS, time_patient, write_for_torchio
    from msseg_jax.simulate.phantom import write_phantoms

    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.patient
        if folder is None:
            write_phantoms(Path(temporary) / "patients", 1, seed=0)
            folder = Path(temporary) / "patients" / "phantom_001"
        run = Path(temporary) / "run"
        if flags.model is None:
            write_run(run, folder)
        else:  # a copy, because results are written into the folder
            shutil.copytree(flags.model, run)
        write_for_torchio(run)
        found = {kind: [] for kind in KINDS}
        for _ in range(flags.patient_repeats):
            for kind in KINDS:
                found[kind].append(time_patient(kind, run, folder))
    medians = {
        kind: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for kind, rows in found.items()
    }
    for name, title in (
        ("whole_s", "one patient, s, start-up included"),
        ("again_s", "one patient, s, running process"),
        ("peak_gib", "one patient, peak memory, GiB"),
    ):
        report(f"{title}, TorchIO", *(medians[kind][name] for kind in KINDS))


def write_run(folder: Path, patient_folder: Path, config=None):
    """Write an untrained run, by default of `configs/msseg2.py`. It is as fast as a trained one."""
    import numpy as np

    from msseg_jax.configuration.files import find, read
    from msseg_jax.data import preprocess
    from msseg_jax.models.checkpoints import Checkpoints, Progress
    from msseg_jax.models.run_folder import RunFolder
    from msseg_jax.network.model import SiameseMPUNet, initial_variables
    from msseg_jax.volumes.layout import patient_in
    from msseg_jax.volumes.pair import read_pair

    config = config or read(find("msseg2"))
    settings = config.data.preprocessing
    patient = patient_in(patient_folder)
    resampled = preprocess.resample(patient, read_pair(patient), settings)
    histograms = preprocess.histograms(patient, resampled, settings)
    run = RunFolder(folder)
    run.create_or_continue(config)
    run.keep(config, preprocess.fit([histograms], settings), {})
    variables = _spread(initial_variables(SiameseMPUNet(config.model), 0), np.random.default_rng(0))
    with Checkpoints(run.checkpoints / "last") as checkpoints:
        checkpoints.save(1, variables, {"moments": np.zeros(1)}, Progress())


def take_turns(passes, repeats) -> dict[str, float]:
    """Return the median seconds of each function.

    They take turns, so that other work on the machine slows all of them alike.
    """
    seconds = {name: [] for name in passes}
    for _ in range(repeats):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(name, ours, peer, share=1):
    print(f"{name:<44}{ours / share:>9.3f}{peer / share:>9.3f}{ours / peer:>8.2f}", flush=True)


def _spread(variables, generator):
    """Return variables in which all statistics and weights are random and not zero or one.

    An untrained network has an output kernel of zeros, so any two of them would agree.
    """
    import jax
    import numpy as np

    def change(path, leaf):
        name = path[-1].key
        noise = generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if name in ("scale", "var"):
            return noise
        if name in ("mean", "bias"):
            return (noise - 1) * 0.2
        return np.asarray(leaf) if np.any(leaf) else noise - 1

    return jax.tree_util.tree_map_with_path(change, variables)


if __name__ == "__main__":
    main()
