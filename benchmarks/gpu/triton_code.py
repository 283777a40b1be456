"""Compile the Pallas kernels for a GPU that is not there, with Triton and its assembler.

Usage: python -m benchmarks.gpu.triton_code [--architecture 90] [--dtypes float32,bfloat16]
Needs Triton (a part of PyTorch for Linux). Prints, for each pass of the paper's training step and
each form, registers per thread, bytes that do not fit into them (spilled), shared memory, and how
many instructions use tensor cores. So a kernel that cannot be compiled is found without a GPU.
JAX has its own copy of Triton, so on a GPU the numbers can differ a little.
"""

import argparse
import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Program(NamedTuple):
    """A kernel as Pallas gives it to Triton."""

    name: str
    code: bytes
    warps: int
    stages: int


def main() -> None:
    """Compile all kernels and print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu.triton_code", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--architecture", type=int, default=90, help="80: A100, 90: H100; default")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="separated by commas")
    flags = parser.parse_args()
    from msseg_jax.configuration.files import find, read
    from msseg_jax.network.convolution.kernels import kernels
    from msseg_jax.network.layers import find_layers, training_jobs
    from msseg_jax.network.model import SiameseMPUNet

    config = read(find("msseg2"))
    print(f"{'pass':<62}{'form':<11}{'registers':>10}{'spilled':>9}{'shared KiB':>12}{'tensor':>8}")
    for dtype in flags.dtypes.split(","):
        model = SiameseMPUNet(config.model, compute_dtype=dtype)
        side = config.data.patch_size
        layers = find_layers(model, config.train.batch_size, (side,) * 3)
        jobs = [job for job in dict.fromkeys(training_jobs(layers)) if job.layer.kernel_size == 3]
        for job in jobs:
            for form in map(kernels, (2, 4, 8)):
                for program in dict.fromkeys(programs(form, job)):
                    numbers = compiled(program, flags.architecture)
                    print(f"{job!s:<62}{form.name:<11}" + numbers, flush=True)


def programs(form, job) -> Iterator[Program]:
    """Yield the kernels of a pass."""
    import jax
    from jaxlib.mlir import ir

    with absent_gpu():
        traced = jax.jit(job.run_by(form)).trace(*job.arguments)
        lowered = traced.lower(lowering_platforms=("cuda",))

    def walk(operation):
        for region in operation.regions:
            for block in region.blocks:
                for child in block.operations:
                    yield child.operation
                    yield from walk(child.operation)

    for operation in walk(lowered.compiler_ir().operation):
        if operation.name != "stablehlo.custom_call":
            continue
        target = ir.StringAttr(operation.attributes["call_target_name"]).value
        if target == "__gpu$xla.gpu.triton":
            settings = ir.DictAttr(operation.attributes["mhlo.backend_config"])
            yield Program(
                ir.StringAttr(settings["name"]).value,
                bytes(ir.StringAttr(settings["ir"]).value_bytes),
                ir.IntegerAttr(settings["num_warps"]).value,
                ir.IntegerAttr(settings["num_stages"]).value,
            )


def absent_gpu():
    """Return a context in which JAX lowers programs for an H100."""
    try:
        from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

        device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
        return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))
    except (ImportError, TypeError):  # JAX before 0.11 does not need it
        return contextlib.nullcontext()


def compiled(program: Program, architecture: int) -> str:
    """Compile a kernel, and return the numbers of the table."""
    import triton
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import Language, make_backend

    target = GPUTarget("cuda", architecture, 32)
    backend = make_backend(target)
    options = backend.parse_options({"num_warps": program.warps, "num_stages": program.stages})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    with tempfile.TemporaryDirectory() as folder:
        source, assembly = Path(folder, "kernel.bc"), Path(folder, "kernel.ptx")
        source.write_bytes(program.code)
        module = ir.parse_mlir_module(str(source), context)
        module.context = context
        stages: dict = {}
        backend.add_stages(stages, options, Language.TRITON)
        metadata = {"target": target, **options.__dict__}
        for name in ("ttir", "ttgir", "llir", "ptx"):
            module = stages[name](module, metadata)
        assembly.write_text(module)
        assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
        suffix = "a" if architecture >= 90 else ""
        done = subprocess.run(
            [assembler, "-v", f"--gpu-name=sm_{architecture}{suffix}", assembly,
             "-o", Path(folder, "kernel.cubin")],
            capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        return f"  failed: {done.stderr.strip().splitlines()[-1]}"
    registers = re.search(r"Used (\d+) registers", done.stderr)[1]
    spilled = re.search(r"(\d+) bytes spill stores", done.stderr)[1]
    tensor = module.count("wgmma.mma_async") + module.count("mma.sync")
    return f"{registers:>10}{spilled:>9}{metadata['shared'] / 2**10:>12.0f}{tensor:>8}"


if __name__ == "__main__":
    main()
