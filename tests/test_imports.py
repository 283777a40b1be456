"""How the modules of msseg_jax depend on each other. Read from the source; nothing is imported."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "msseg_jax"
# A package imports from itself and from those to its right.
LAYERS = (
    "cli", "training", "inference", "report", "evaluation", "simulate", "prepare", "models", "data",
    "network", "volumes", "configuration", "system",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module, and where it is imported."""

    importer: str  # a module's full name
    imported: str
    place: str  # file:line, from the repository's folder

    def __str__(self) -> str:
        return f"{self.place} imports {self.imported}"


def module_name(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_imports(package: Path) -> list[Import]:
    """Return all imports of modules of this package, also those inside functions."""
    files = {module_name(file, package): file for file in sorted(package.rglob("*.py"))}
    return [
        Import(name, imported, f"{file.relative_to(package.parent)}:{line}")
        for name, file in files.items()
        for imported, line in imports_of(name, file, set(files))
        if imported != package.name  # it has the version, and imports nothing
    ]


def imports_of(name: str, file: Path, modules: set[str]) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file imports, with the line of each."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:  # from . import x
                parents = name.split(".")[: -node.level + (file.name == "__init__.py") or None]
                start = ".".join([*parents, start]).rstrip(".")
            # What is imported is a module, or something in one.
            names = [
                full if (full := f"{start}.{alias.name}") in modules else start
                for alias in node.names
            ]
        else:
            continue
        yield from ((imported, node.lineno) for imported in names if imported in modules)


def upward(imports: list[Import]) -> list[str]:
    """Return the imports of a package by one that is below it."""
    rank = {f"msseg_jax.{layer}": k for k, layer in enumerate(LAYERS)}

    def of(module: str) -> int:
        return rank[".".join(module.split(".")[:2])]

    return [
        f"{one}, a layer above" for one in imports
        if one.importer != "msseg_jax.__main__" and of(one.imported) < of(one.importer)
    ]  # fmt: skip


def circle(imports: list[Import]) -> list[str]:
    """Return the imports of one circle between modules, or nothing."""
    graph = defaultdict(set)
    for one in imports:
        graph[one.importer].add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        modules = error.args[1][::-1]  # each imports the next
        places = {(one.importer, one.imported): str(one) for one in imports}
        return [places[pair] for pair in pairwise(modules)]
    return []


def classes_of_one_name(package: Path) -> list[str]:
    """Return the names of classes that are defined more than once, with their places."""
    places = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                place = f"{file.relative_to(package.parent)}:{node.lineno}"
                places[node.name].append(place)
    return [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return find_imports(PACKAGE)


def test_every_package_has_its_place_among_the_layers():
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert packages == set(LAYERS)


def test_imports_run_in_one_direction(imports):
    assert len(imports) > 100, "the imports were not found"
    found = upward(imports)
    assert not found, "\n".join(found)


def test_no_modules_import_each_other_in_a_circle(imports):
    found = circle(imports)
    assert not found, "\n".join(found)


def test_no_two_classes_share_a_name():
    found = classes_of_one_name(PACKAGE)
    assert not found, "\n".join(found)


@pytest.fixture
def package(tmp_path) -> Path:
    """A package with an upward import, a circle inside a function, and a name used twice."""
    sources = {
        "__init__.py": "",
        "volumes/__init__.py": "",
        "volumes/grid.py": "import numpy\nfrom msseg_jax.data import cache\nclass Grid: ...\n",
        "data/__init__.py": "from .cache import open_patient\n",
        "data/cache.py": "def open_patient():\n    from msseg_jax.volumes.grid import Grid\n",
        "data/split.py": "import msseg_jax\nfrom . import cache\nclass Grid: ...\n",
    }
    for name, source in sources.items():
        file = tmp_path / "msseg_jax" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return tmp_path / "msseg_jax"


def test_an_upward_import_is_named_with_its_file(package):
    assert upward(find_imports(package)) == [
        "msseg_jax/volumes/grid.py:2 imports msseg_jax.data.cache, a layer above"
    ]


def test_a_circle_is_named_import_by_import(package):
    found = find_imports(package)
    assert sorted(circle(found)) == [
        "msseg_jax/data/cache.py:2 imports msseg_jax.volumes.grid",
        "msseg_jax/volumes/grid.py:2 imports msseg_jax.data.cache",
    ]
    assert len(found) == 4, "the relative imports of data/__init__.py and data/split.py as well"


def test_a_second_class_of_one_name_is_named_with_its_file(package):
    assert classes_of_one_name(package) == [
        "Grid: msseg_jax/data/split.py:3, msseg_jax/volumes/grid.py:3"
    ]
