"""Nothing runs most benchmarks but a person, so a name that moved is looked for here."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_a_benchmark_imports_only_what_this_project_has(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        package, *rest = (node.module or "").split(".")
        if package not in ("msseg_jax", "configs") and (package, rest) != ("benchmarks", []):
            continue
        module = import_module(node.module)
        for alias in node.names:
            if package == "benchmarks":
                assert (FOLDER / f"{alias.name}.py").exists(), alias.name  # may need the extra
            elif not hasattr(module, alias.name):
                import_module(f"{node.module}.{alias.name}")
