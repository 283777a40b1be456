"""One patient from files to mask, ours or PyTorch with TorchIO: a process of its own for each.

`time_patient` starts the process; it is `benchmarks.cpu` that compares.
"""

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

    Returns:
      whole_s: from the start of the process to the first mask on disk, compilation included.
      again_s: the second time, in the process that is running by then.
      peak_gib: of the process.
    """
    command = [sys.executable, "-m", "benchmarks.patient", kind, str(run), str(patient)]
    # Monotonic time is the machine's, so that the new process can tell when it was started.
    done = subprocess.run(
        [*command, str(time.monotonic())], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    kind, run, patient, start = sys.argv[1:]
    segment = {"ours": prepare_ours, "TorchIO": prepare_torchio}[kind](Path(run), Path(patient))
    segment()
    first = time.monotonic()
    segment()
    seconds = {"whole_s": first - float(start), "again_s": time.monotonic() - first}
    print(json.dumps(seconds | {"peak_gib": peak_gib()}))


def peak_gib() -> float:
    """Largest memory of this process, by Linux; `getrusage` would count its parent's, too."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20  # kB


def prepare_ours(run: Path, folder: Path):
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
    """What `prepare_torchio` needs of a run, so that its process has nothing of ours in it."""
    import numpy as np

    from benchmarks.peers import Peer, with_weights
    from msseg_jax.models.networks import trained_networks

    (network,) = trained_networks(run)
    weights = with_weights(Peer(network.config.model), network.variables).state_dict()
    np.savez(run / "torchio.npz", **{name: value.numpy() for name, value in weights.items()})


def prepare_torchio(run: Path, folder: Path):
    """The paper's way, in PyTorch's and TorchIO's own words, with our weights."""
    import numpy as np
    import torch
    import torchio

    from benchmarks.peers import Peer

    config = ConfigDict(json.loads((run / "config.json").read_text()))
    patch_size, predict = config.data.patch_size, config.predict
    peer = Peer(config.model)
    weights = np.load(run / "torchio.npz")
    peer.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    peer = peer.to(memory_format=torch.channels_last_3d).eval()
    # TorchIO wants landmarks at percentiles of its own; the work is the same.
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
