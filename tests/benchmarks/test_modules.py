"""Check the modules of all benchmarks: what they import, and what they print as a command.

The tests do not run most benchmarks, so they would miss an import that no longer works.
"""

import ast
import runpy
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = sorted([*FOLDER.glob("*.py"), *FOLDER.glob("gpu/**/*.py")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_benchmark_imports_only_names_that_exist(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        package, *rest = (node.module or "").split(".")
        if package not in ("msseg_jax", "configs") and (package, rest) != ("benchmarks", []):
            continue
        module = import_module(node.module)
        for alias in node.names:
            if package == "benchmarks":
                assert (FOLDER / f"{alias.name}.py").exists(), (
                    alias.name
                )  # not imported: it may need the extra
            elif not hasattr(module, alias.name):
                import_module(f"{node.module}.{alias.name}")


def run_with_help(name, monkeypatch) -> SystemExit:
    """Run a benchmark as `python -m benchmarks.NAME --help`, and return the exit."""
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return ending.value


def test_the_help_of_patient_says_what_it_measures(monkeypatch, capsys):
    assert run_with_help("patient", monkeypatch).code == 0
    text = capsys.readouterr().out
    assert "Time the segmentation of one patient" in text
    assert "patient_folder" in text


@pytest.mark.parametrize("name", ["data", "peers", "roofline"])
def test_a_module_that_is_not_a_command_says_so(name, monkeypatch):
    assert str(run_with_help(name, monkeypatch)).startswith(f"benchmarks.{name} is not a command.")
