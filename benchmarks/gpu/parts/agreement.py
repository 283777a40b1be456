"""Compare the GPU with the CPU: forward pass, gradients, 20 training steps.

The same random network and patches go through the CPU, through the GPU with the plain form of all
convolutions, and through the GPU with each kind of other form. Each is a process of its own:

    python -m benchmarks.gpu.parts.agreement OUTPUT FORM SIZE

SIZE is `full` or `small`.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The most valuable ones first, because time is limited.
FORMS = ("kernels 4", "plain", "wide 8", "shifted 8", "padded")
SIZES = {"full": (24, 4, 20), "small": (8, 2, 3)}  # side of the patches, pairs, training steps


def run(task):
    """Compare the probabilities, the gradients and the losses."""
    on_gpu = task.on_gpu()
    if not on_gpu and not task.small:
        return
    size = "small" if task.small else "full"
    device = "gpu" if on_gpu else "cpu"
    forms = FORMS if on_gpu else ("plain", "shifted 8")
    with ThreadPoolExecutor() as pool:
        on_cpu = pool.submit(compute, task.scratch, "cpu", "cpu", size)
        running = {form: pool.submit(compute, task.scratch, device, form, size) for form in forms}
        for form, future in running.items():
            try:
                task.report(**{form: differences(on_cpu.result(), future.result())})
            except subprocess.CalledProcessError as error:
                print(f"{form}:\n{(error.output or '')[-5000:]}", flush=True)
                last = (error.output or "").strip().splitlines()[-1:] or ["no output"]
                task.report(**{form: f"failed: {last[0][:200]}"})


def compute(scratch: Path, device: str, form: str, size: str) -> dict:
    """Compute everything in a new process, and return the arrays by name."""
    import numpy as np

    output = scratch / f"agreement-{device}-{form.replace(' ', '-')}.npz"
    environment = dict(os.environ)
    if device == "cpu":
        environment |= {"JAX_PLATFORMS": "cpu"}
    subprocess.run(
        [sys.executable, "-m", __name__, str(output), form, size], check=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with np.load(output) as arrays:
        return dict(arrays)


def differences(cpu: dict, gpu: dict) -> dict:
    """Return the largest differences: probabilities, gradients by norm, losses."""
    import numpy as np

    gradients = [name for name in cpu if name.startswith("gradient")]
    relative = [
        float(np.linalg.norm(gpu[n] - cpu[n]) / max(np.linalg.norm(cpu[n]), 1e-30))
        for n in gradients
    ]
    return {
        "probability": float(np.abs(gpu["probability"] - cpu["probability"]).max()),
        "worst_gradient": max(relative),
        "median_gradient": float(np.median(relative)),
        "first_loss": float(abs(gpu["losses"][0] - cpu["losses"][0])),
        "last_loss": float(abs(gpu["losses"][-1] - cpu["losses"][-1])),
        "loss_change": float(cpu["losses"][0] - cpu["losses"][-1]),
    }


def main() -> None:
    """Compute in this process, and write the arrays."""
    output, form, size = Path(sys.argv[1]), *sys.argv[2:]
    side, batch, steps = SIZES[size]
    import jax
    import numpy as np

    from benchmarks.cpu import _spread
    from msseg_jax.configuration.files import find, read
    from msseg_jax.network.convolution import differentiable
    from msseg_jax.network.convolution.candidates import CANDIDATES
    from msseg_jax.network.convolution.form import Form
    from msseg_jax.network.convolution.plain import PLAIN
    from msseg_jax.network.losses import batch_dice_loss
    from msseg_jax.network.model import SiameseMPUNet
    from msseg_jax.training.devices import AXIS, on_every_device, parallel_step
    from msseg_jax.training.step import create_state, train_step

    if form != "cpu":
        forced: Form = {f.name: f for f in (PLAIN, *CANDIDATES)}[form]

        def form_for(layer, which):
            # The Pallas kernels are only for kernels of 3x3x3 voxels.
            return PLAIN if layer.kernel_size == 1 and "kernels" in form else forced

        differentiable.form_for = form_for
        if jax.default_backend() == "cpu":  # this test of the script has no GPU
            differentiable._cpu_form = lambda dtype: forced

    config = read(find("msseg2"))
    small = {"widths": (3, 2), "node_convolutions": 1, "refinement_convolutions": 1}
    settings = config.model.model_copy(
        update={"dropout_rate": 0.0} | (small if size == "small" else {})
    )
    model = SiameseMPUNet(settings, AXIS)
    devices = jax.local_devices()[:1]
    state = create_state(model, lambda step: config.train.learning_rate)
    rng = np.random.default_rng(0)
    variables = _spread(state.model_variables, rng)
    visits = rng.standard_normal((2, batch, side, side, side, 1), np.float32)
    wide = visits[1] > 1
    given = {
        "time01": visits[0], "time02": visits[1],
        "targets": np.repeat(wide, settings.targets, axis=-1).astype(np.uint8),
        "patch_ids": np.arange(batch, dtype=np.int32),
    }  # fmt: skip
    single = SiameseMPUNet(settings)

    @jax.jit
    def forward(variables, given):
        return single.apply(variables, given["time01"], given["time02"], train=False)

    @jax.jit
    def gradient(params, stats, given):
        def loss(params):
            found, _ = single.apply(
                {"params": params, "batch_stats": stats}, given["time01"], given["time02"],
                train=True, patch_ids=given["patch_ids"], mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )  # fmt: skip
            return batch_dice_loss(found, given["targets"], axis_name=None)

        return jax.grad(loss)(params)

    arrays = {"probability": np.asarray(forward(variables, given))}
    found = gradient(variables["params"], variables["batch_stats"], given)
    for number, leaf in enumerate(jax.tree.leaves(found)):
        arrays[f"gradient_{number}"] = np.asarray(leaf)
    state = on_every_device(state.replace(**variables), devices)
    step = parallel_step(lambda state, batch, _: train_step(state, batch, seed=0), devices)
    losses = []
    for _ in range(steps):
        state, metrics, _ = step(state, given)
        losses.append(float(metrics["loss"]))
    np.savez(output, losses=losses, **arrays)


if __name__ == "__main__":
    main()
