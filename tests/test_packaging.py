"""Tests of the wheel, the source distribution and the requirements files."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import msseg_jax

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"


def source_files(root: Path) -> set[str]:
    """Return the files that Git tracks, or without Git all files except compiled ones."""
    if (root / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return {name for name in listed if (root / name).exists()}
    folders = ("msseg_jax", "configs", "tests", "benchmarks", "docs")
    files = [file for folder in folders for file in (root / folder).rglob("*") if file.is_file()]
    files += [file for file in root.iterdir() if file.is_file()]
    names = {file.relative_to(root).as_posix() for file in files}
    return {name for name in names if not name.endswith(".pyc")}


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Return the names of the files of this repository."""
    return source_files(ROOT)


@pytest.fixture(scope="module")
def dist(tracked, tmp_path_factory) -> Path:
    """Build the wheel and the source distribution from a copy; return the folder with both."""
    copy = tmp_path_factory.mktemp("repository")
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return copy / "dist"


@pytest.fixture(scope="module")
def wheel(dist) -> dict[str, str]:
    """Return the files of the wheel by name, with the text of its metadata files."""
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {
            name: archive.read(name).decode() if ".dist-info/" in name else ""
            for name in archive.namelist()
        }


def requirements(name: str) -> set[Requirement]:
    """Return the requirements in a file and in the files that it includes."""
    found = set()
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text.startswith("-r"):
            found |= requirements(text.removeprefix("-r").strip())
        elif text:
            found.add(Requirement(text))
    return found


def test_the_wheel_holds_the_whole_package_and_the_configurations(tracked, wheel):
    expected = {name for name in tracked if name.startswith("msseg_jax/")}
    expected |= {f"msseg_jax/{name}" for name in tracked if name.startswith("configs/")}
    assert {name for name in wheel if ".dist-info/" not in name} == expected
    assert "msseg_jax/configs/msseg2.py" in expected
    assert "msseg_jax/models/weights/flair_changes.safetensors" in expected


def test_the_wheel_provides_the_command_msseg(wheel):
    (entry_points,) = (text for name, text in wheel.items() if name.endswith("entry_points.txt"))
    assert "msseg = msseg_jax.cli.main:main" in entry_points


def test_the_wheel_works_in_another_folder(dist, tmp_path):
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "elsewhere").mkdir()
    code = "import sys, msseg_jax, msseg_jax.cli.main as m; print(msseg_jax.__file__); m.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--config=msseg2", "--mode=describe"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == str(tmp_path / "installed" / "msseg_jax" / "__init__.py")
    assert rest[-1] == "parameters: 40465"


@pytest.mark.slow
def test_the_tests_of_the_source_distribution_run(dist, tmp_path):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    # These tests read files from outside the package: scores, weights, configurations,
    # documentation.
    some = ["tests/test_imports.py", "tests/evaluation", "tests/models", "tests/configuration"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", *some],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_extras_agree_with_the_requirements_files(wheel):
    (metadata,) = (text for name, text in wheel.items() if name.endswith("METADATA"))
    required = [Requirement(text) for text in re.findall("^Requires-Dist: (.+)$", metadata, re.M)]
    run = requirements("requirements.txt")
    assert {one for one in required if one.marker is None} == run

    def extra(name: str) -> set[Requirement]:
        marked = [one for one in required if f'extra == "{name}"' in str(one.marker)]
        return {Requirement(str(one).split(";")[0]) for one in marked}

    assert extra("prepare") == requirements("requirements-prepare.txt")
    assert extra("docs") == requirements("requirements-docs.txt")
    assert extra("benchmarks") == requirements("requirements-benchmarks.txt")
    assert extra("dev") | run == requirements("requirements-dev.txt")


def test_the_source_distribution_holds_every_file(tracked, dist):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    assert tracked <= names


def run_with_python(version: tuple[int, ...]) -> None:
    """Run the source of msseg_jax/__init__.py as if Python had this version."""
    source = Path(msseg_jax.__file__).read_text(encoding="utf-8")
    assert "sys.version_info" in source
    exec(source.replace("sys.version_info", str(version)), {})


def test_other_versions_of_python_are_refused_in_one_line():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    run_with_python((3, 11, 0))
    run_with_python((3, 13, 9))
    for version in ((3, 10, 13), (3, 14, 0)):
        with pytest.raises(SystemExit, match=r"^msseg_jax needs Python 3.11, 3.12 or 3.13; .*$"):
            run_with_python(version)
