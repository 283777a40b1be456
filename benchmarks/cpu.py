"""Ours beside PyTorch, TorchIO and OpenVINO on a CPU: the same network, weights, data and threads.

Usage: python -m benchmarks.cpu [--model RUN --patient FOLDER] [--batch_size 4] [--repeats 5]
Needs requirements-benchmarks.txt. The forward pass and the training step take turns with their
peers in one process, and the medians are compared. With a run and a patient (a folder in the
MSSEG-2 layout) also one patient from files to mask: ours as the command a user types, start-up
included, and in a process that is running; the peer's in a process that is running.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

TOLERANCE = 1e-4  # of probabilities: the comparison is of the same function


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, metavar="RUN", help="a trained run")
    parser.add_argument("--patient", type=Path, metavar="FOLDER", help="a pair to segment")
    parser.add_argument("--batch_size", type=int, default=4, help="patch pairs")
    parser.add_argument("--patch_size", type=int, default=56, help="voxels")
    parser.add_argument("--repeats", type=int, default=5)
    flags = parser.parse_args()
    import jax
    import openvino
    import torch

    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    from msseg_jax import native

    print(
        f"jax {jax.__version__}, torch {torch.__version__}, openvino {openvino.__version__}, "
        f"{threads} threads, convolution: {native.state()[1]}"
    )
    print(f"{'':<44}{'ours':>9}{'peer':>9}{'ratio':>8}")
    compare_passes(flags, threads)
    if flags.model and flags.patient:
        compare_patients(flags)


def compare_passes(flags, threads):
    """Forward pass and training step, per patch pair."""
    import jax
    import numpy as np
    import openvino
    import torch

    from benchmarks.peers import Peer, with_weights
    from configs import msseg2
    from msseg_jax.inference import compile_forward
    from msseg_jax.model import build_model
    from msseg_jax.parallel import AXIS, on_every_device, parallel_step
    from msseg_jax.train import create_state, train_step

    config = msseg2.get_config()
    generator = np.random.default_rng(0)
    shape = (flags.batch_size, *(flags.patch_size,) * 3)
    visits = generator.standard_normal((2, *shape, 1), np.float32)
    targets = (generator.random((*shape, config.model.targets)) < 0.02).astype(np.uint8)

    model = build_model(config, axis_name=AXIS)
    state = create_state(config, model, lambda step: config.train.learning_rate)
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

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "THROUGHPUT"}
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
        apart = float(np.abs(results[name] - results["ours"]).max())
        if not apart <= TOLERANCE:
            sys.exit(f"{name} and ours differ by {apart:.1e} in probability: not the same function")
        print(f"{'probabilities, largest difference, ' + name:<44}{apart:>26.1e}")
    seconds = take_turns(passes, flags.repeats)
    for name in ("PyTorch", "OpenVINO"):
        report(f"forward, s per patch pair, {name}", seconds["ours"], seconds[name], len(visits[0]))

    devices = jax.local_devices()
    step = parallel_step(partial(train_step, dropout_key=jax.random.key(1)), devices)
    batch = {"time01": visits[0], "time02": visits[1], "targets": targets,
             "patch_ids": np.arange(flags.batch_size, dtype=np.int32)}  # fmt: skip
    states = [on_every_device(state, devices)]
    peer.train()
    optimiser = torch.optim.Adam(peer.parameters(), config.train.learning_rate)
    wanted = torch.from_numpy(np.moveaxis(targets, -1, 1).astype(np.float32))

    def our_step():
        states[0], metrics = step(states[0], batch)
        jax.block_until_ready(metrics)

    def torch_step():
        optimiser.zero_grad(set_to_none=True)
        found = peer(*pair)
        both, total = (found * wanted).sum(), found.sum() + wanted.sum()
        (-2 * (both + 1e-5) / (total + 1e-5)).backward()
        optimiser.step()

    passes = {"ours": our_step, "PyTorch": torch_step}
    for run in passes.values():
        run()  # compiles
    seconds = take_turns(passes, flags.repeats)
    name = "training step, s per patch pair, PyTorch"
    report(name, seconds["ours"], seconds["PyTorch"], flags.batch_size)


def compare_patients(flags):
    """One patient from files to mask."""
    from msseg_jax.data import dataset
    from msseg_jax.predict import Outputs, Predictor, predict_patient

    folder, mask = flags.patient, flags.patient / dataset.BRAIN_MASK
    files = {"-t1": folder / dataset.TIME01, "-t2": folder / dataset.TIME02, "--mask": mask}
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "new.nii.gz"
        arguments = [str(part) for pair in files.items() for part in pair]
        command = [sys.executable, "-m", "msseg_jax.predict", f"--model={flags.model}"]
        start = time.perf_counter()
        subprocess.run(
            [*command, *arguments, "-o", str(output)], check=True, stdout=subprocess.DEVNULL
        )
        whole_s = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        predictor = Predictor(flags.model)
        patient = dataset.Patient("one", *files.values())
        options = predictor.options()
        predict_patient(predictor, patient, options, Outputs(output))  # compiles
        ours_s, peers_s = [], []
        for _ in range(2):
            start = time.perf_counter()
            predict_patient(predictor, patient, options, Outputs(output))
            ours_s.append(time.perf_counter() - start)
            peers_s.append(peer_patient(predictor, files, options, Path(temporary)))
        ours, peer = statistics.median(ours_s), statistics.median(peers_s)
        report("one patient, s, start-up included, TorchIO", whole_s, peer)
        report("one patient, s, running process, TorchIO", ours, peer)
        print(f"{'peak memory of ours, GiB':<44}{peak:>9.2f}")


def peer_patient(predictor, files, options, folder) -> float:
    """Seconds that PyTorch and TorchIO take from the same files to a mask, the paper's way."""
    import numpy as np
    import torch
    import torchio

    from benchmarks.peers import Peer, with_weights

    settings = predictor.preprocessing.settings
    peer = with_weights(Peer(predictor.config.model), predictor._variables)
    peer = peer.to(memory_format=torch.channels_last_3d).eval()
    start = time.perf_counter()
    subject = torchio.Subject(
        time01=torchio.ScalarImage(files["-t1"]), time02=torchio.ScalarImage(files["-t2"]),
        brain=torchio.LabelMap(files["--mask"]),
    )  # fmt: skip
    # TorchIO wants landmarks at percentiles of its own; the work is the same.
    landmarks = {name: np.linspace(0, 100, 13) for name in ("time01", "time02")}
    prepare = torchio.Compose(
        [
            torchio.Resample(settings.spacing_mm),
            torchio.HistogramStandardization(landmarks, masking_method="brain"),
            torchio.ZNormalization(masking_method="brain"),
        ]
    )
    prepared = prepare(subject)
    tiles = torchio.inference.GridSampler(prepared, settings.patch_size, options.overlap)
    average = torchio.inference.GridAggregator(tiles, overlap_mode="average")
    with torch.no_grad():
        for batch in torch.utils.data.DataLoader(tiles, batch_size=options.batch_size):
            visits = [
                batch[name]["data"].float().to(memory_format=torch.channels_last_3d)
                for name in ("time01", "time02")
            ]
            average.add_batch(peer(*visits)[:, :1].contiguous(), batch["location"])
    probability = torchio.ScalarImage(
        tensor=average.get_output_tensor(), affine=prepared.time01.affine
    )
    on_file_grid = torchio.Resample(subject.time01)(probability)
    mask = (on_file_grid.data > options.threshold) & (subject.brain.data > 0)
    result = torchio.LabelMap(tensor=mask.to(torch.uint8), affine=on_file_grid.affine)
    result.save(folder / "peer.nii.gz")
    return time.perf_counter() - start


def take_turns(passes, repeats) -> dict[str, float]:
    """Median seconds of each function; they alternate, so that a busy machine is busy for all."""
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
    """The variables with statistics and weights unlike those of an untrained network, so that an
    agreement says something."""
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
