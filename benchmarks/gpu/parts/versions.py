"""The versions of everything, and the card."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "triton", "nvidia-cudnn-cu13",
            "nvidia-cudnn-cu12", "jax-cuda13-plugin", "jax-cuda12-plugin")  # fmt: skip


def run(task):
    """Report versions and the card."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    task.report(versions=found)
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True, text=True,
        )  # fmt: skip
        task.report(nvidia_smi=done.stdout.strip())
    import jax

    from msseg_jax.network.convolution import choice
    from msseg_jax.system.machine import processors

    device = jax.local_devices()[0]
    task.report(
        device=device.device_kind, backend=jax.default_backend(), processors=processors(),
        platform=device.client.platform_version, forms=choice.why_not() or "timed on this GPU",
    )  # fmt: skip
