"""Time the segmentation of one patient by this project or by PyTorch with TorchIO.

Usage: python -m benchmarks.patient KIND RUN PATIENT_FOLDER
The time is from files to mask, and is printed as JSON. `benchmarks.cpu` compares the two kinds: it
calls `time_patient`, which starts a new process of this module for each measurement.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from ml_collections import ConfigDict

from msseg_jax.volumes import layout

KINDS = ("ours", "TorchIO")


def time_patient(kind: str, run: Path, patient: Path) -> dict:
    """Segment a patient (a folder in the MSSEG-2 layout) twice in a new process.

    Args:
      kind: one of KINDS.
      run: folder of a trained run. The masks are written into it.

    Returns:
      whole_s: seconds from the start of the process to the first mask on disk. This includes the
        compilation.
      again_s: seconds of the second segmentation in the same process.
      peak_gib: peak memory of the process.
    """
    command = [sys.executable, "-m", "benchmarks.patient", kind, str(run), str(patient)]
    # All processes share the monotonic clock, so the new process can compute how long it has run.
    done = subprocess.run(
        [*command, str(time.monotonic())], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS, help="ours: this project; TorchIO: with PyTorch")
    parser.add_argument(
        "run", type=Path, help="folder of a trained run, into which the mask is written; for "
        "TorchIO it needs torchio.npz, which `write_for_torchio` makes",
    )  # fmt: skip
    parser.add_argument("patient_folder", type=Path, help="a pair in the MSSEG-2 layout")
    parser.add_argument(
        "start", type=float, nargs="?", default=time.monotonic(),
        help="time on the monotonic clock at which this process was started, s; default: now",
    )  # fmt: skip
    flags = parser.parse_args()
    prepare = {"ours": prepare_ours, "TorchIO": prepare_torchio}[flags.kind]
    segment = prepare(flags.run, flags.patient_folder)
    segment()
    first = time.monotonic()
    segment()
    seconds = {"whole_s": first - flags.start, "again_s": time.monotonic() - first}
    print(json.dumps(seconds | {"peak_gib": peak_gib()}))


def peak_gib() -> float:
    """Return the peak memory of this process on Linux.

    `getrusage` is not used, because it can report the peak of the parent process.
    """
    status = dict(
        line.split(":")
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return int(status["VmHWM"].split()[0]) / 2**20  # in kB


def prepare_ours(run: Path, folder: Path):
    """Return a function that segments the patient with this project."""
    from msseg_jax.system.machine import keep_freed_memory

    keep_freed_memory()
    from msseg_jax.inference.ensemble import Ensemble
    from msseg_jax.inference.outputs import Outputs
    from msseg_jax.inference.prediction import predict
    from msseg_jax.inference.results import write_results

    ensemble = Ensemble([run])
    patient = layout.patient_in(folder)
    outputs = Outputs(run / "ours.nii.gz")
    options = ensemble.options()
    return lambda: write_results(predict(ensemble, patient, options), outputs)


def write_for_torchio(run: Path) -> None:
    """Write the weights of a run as torchio.npz.

    With this file `prepare_torchio` can load the weights without importing JAX.
    """
    import numpy as np

    from benchmarks.peers import Peer, with_weights
    from msseg_jax.models.networks import trained_networks

    (network,) = trained_networks(run)
    weights = with_weights(Peer(network.config.model), network.variables).state_dict()
    np.savez(run / "torchio.npz", **{name: value.numpy() for name, value in weights.items()})


def prepare_torchio(run: Path, folder: Path):
    """Return a function that segments the patient with PyTorch and TorchIO.

    It follows the paper's method, uses the functions of PyTorch and TorchIO where they exist, and
    has the weights of the run.
    """
    import numpy as np
    import torch
    import torchio

    from benchmarks.peers import Peer

    config = ConfigDict(json.loads((run / "config.json").read_text(encoding="utf-8")))
    patch_size, predict = config.data.patch_size, config.predict
    peer = Peer(config.model)
    weights = np.load(run / "torchio.npz")
    peer.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    peer = peer.to(memory_format=torch.channels_last_3d).eval()
    # TorchIO requires landmarks at its own percentiles, so these are placeholders. The computing
    # time does not depend on their values.
    landmarks = {name: np.linspace(0, 100, 13) for name in ("time01", "time02")}
    prepare = torchio.Compose(
        [
            torchio.Resample(config.data.spacing_mm),
            torchio.HistogramStandardization(landmarks, masking_method="brain"),
            torchio.ZNormalization(masking_method="brain"),
        ]
    )

    def segment():
        subject = torchio.Subject(
            time01=torchio.ScalarImage(folder / layout.TIME01),
            time02=torchio.ScalarImage(folder / layout.TIME02),
            brain=torchio.LabelMap(folder / layout.BRAIN_MASK),
        )
        prepared = prepare(subject)
        tiles = torchio.inference.GridSampler(prepared, patch_size, predict.overlap)
        average = torchio.inference.GridAggregator(tiles, overlap_mode="average")
        loader = torchio.SubjectsLoader(tiles, batch_size=predict.batch_size)
        with torch.no_grad():
            for batch in loader:
                visits = [
                    batch[name]["data"].float().to(memory_format=torch.channels_last_3d)
                    for name in ("time01", "time02")
                ]
                average.add_batch(peer(*visits)[:, :1].contiguous(), batch["location"])
        probability = torchio.ScalarImage(
            tensor=average.get_output_tensor(), affine=prepared.time01.affine
        )
        on_file_grid = torchio.Resample(subject.time01)(probability)
        mask = (on_file_grid.data > predict.threshold) & (subject.brain.data > 0)
        result = torchio.LabelMap(tensor=mask.to(torch.uint8), affine=on_file_grid.affine)
        result.save(run / "torchio.nii.gz")

    return segment


if __name__ == "__main__":
    main()
