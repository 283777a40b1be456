"""Check the native convolution, and the fallback and its warning if compiling or loading fails."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from msseg_jax.network.native import library
from msseg_jax.system.cache_folder import cache_folder
from tests.support.session import HAS_NATIVE

ROOT = Path(__file__).parents[2]
CHECK = """
import jax, jax.numpy as jnp
from msseg_jax.network import convolution, native
x = jnp.arange(5 * 6 * 7 * 2.0).reshape(1, 5, 6, 7, 2)
kernel = jnp.ones((3, 3, 3, 2, 3))
y = jax.jit(lambda *a: convolution.conv3d(a[:1], a[1]))(x, kernel)
inner = float(x[0, 1:4, 2:5, 3:6].sum())
assert abs(float(y[0, 2, 3, 4, 0]) - inner) < 1e-2, (y[0, 2, 3, 4, 0], inner)
print(*native.state())
"""
# These tests need a compiler. If there is one but the build fails, they fail and are not skipped.
needs_compiler = pytest.mark.skipif(not HAS_NATIVE, reason="no C++ compiler, or JAX is on a GPU")


def start(cache: Path, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", CHECK], cwd=ROOT, text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process) -> tuple[str, str]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output.strip(), errors


def test_without_a_compiler_one_line_says_what_to_install(tmp_path):
    output, errors = finish(start(tmp_path, PATH="", CXX=""))
    assert output.startswith("False there is no C++ compiler")
    assert errors.count("\n") == 1
    assert "apt install g++" in errors


@needs_compiler
def test_a_missing_compiler_is_named_and_another_one_is_used(tmp_path):
    output, errors = finish(start(tmp_path, CXX="no-such-c++"))
    assert output.startswith("True compiled")
    assert errors.count("\n") == 1
    assert "CXX is 'no-such-c++', but there is no such program" in errors


def start_with_compiler(tmp_path: Path, script: str):
    compiler = tmp_path / "odd-c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    return start(tmp_path / "cache", CXX=str(compiler))


def test_a_compiler_that_fails_is_named(tmp_path):
    script = "echo this compiler is out of order >&2; exit 1"
    output, errors = finish(start_with_compiler(tmp_path, script))
    assert output.startswith("False ")
    assert "odd-c++ failed: this compiler is out of order" in errors
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_library_that_cannot_be_loaded_is_reported(tmp_path):
    script = 'while [ "$1" != "-o" ]; do shift; done; echo rubbish > "$2"'
    output, errors = finish(start_with_compiler(tmp_path, script))
    assert output.startswith("False ")
    assert "cannot be loaded" in errors


# The names are those of x86 CPUs. On ARM, every 64-bit CPU has the NEON instructions used there.
@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 CPUs differ in AVX")
@pytest.mark.parametrize(
    "cpu",  # with SSE2, SSE4, AVX2
    ["x86-64", *(pytest.param(cpu, marks=pytest.mark.slow) for cpu in ("x86-64-v2", "haswell"))],
)
def test_older_cpus_are_supported(tmp_path, cpu):
    compiler = library.find_compiler()
    output, _ = finish(start_with_compiler(tmp_path, f'exec {compiler} "$@" -march={cpu}'))
    assert output.startswith("True compiled")


def test_the_switch_turns_it_off_without_a_warning(tmp_path):
    output, errors = finish(start(tmp_path, MSSEG_JAX_NATIVE="0"))
    assert output == "False turned off by MSSEG_JAX_NATIVE=0"
    assert errors == ""


@needs_compiler
def test_two_processes_may_compile_at_once_and_a_truncated_library_is_replaced(tmp_path):
    both = [start(tmp_path) for _ in range(2)]
    for process in both:
        output, errors = finish(process)
        assert output.startswith("True compiled")
        assert errors == ""
    (compiled,) = (tmp_path / "msseg_jax").glob("*.so")
    assert len(list((tmp_path / "msseg_jax").iterdir())) == 2  # the compiled and its digest
    whole = compiled.read_bytes()
    compiled.write_bytes(whole[: len(whole) // 2])
    output, _ = finish(start(tmp_path))
    assert output.startswith("True compiled")
    assert compiled.stat().st_size == len(whole)


def test_a_user_without_a_home_folder_has_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() is None  # it is then compiled for this process only


@needs_compiler
def test_works_if_the_cache_folder_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    output, _ = finish(start(tmp_path / "file"))
    assert output.startswith("True compiled")


@needs_compiler
@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="only Linux lists instructions so")
def test_bfloat16_numbers_are_multiplied_where_the_cpu_can(tmp_path):
    has_instructions = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    output, _ = finish(start(tmp_path))
    assert output.endswith("multiplies bfloat16 and float32") == has_instructions
