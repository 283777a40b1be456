"""Check how the modules of msseg_jax depend on each other. Reads the source; imports nothing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "msseg_jax"
# A package may import from itself and from the packages listed after it.
LAYERS = (
    "cli", "api", "training", "inference", "report", "evaluation", "simulate", "prepare", "models",
    "data", "network", "volumes", "configuration", "system",
)  # fmt: skip

ENTRY_MODULES = ("msseg_jax", "msseg_jax.__main__")  # may import from every layer


@dataclass(frozen=True)
class Import:
    """An import of one module by another."""

    importer: str  # full name of the importing module
    imported: str  # full name of the imported module
    place: str  # file:line, relative to the folder of the repository

    def __str__(self) -> str:
        return f"{self.place} imports {self.imported}"


def module_name(file: Path, package: Path) -> str:
    """Return the full name of a module in a file of the package."""
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_imports(package: Path) -> list[Import]:
    """Return all imports of modules of the package, including those inside functions."""
    files = {module_name(file, package): file for file in sorted(package.rglob("*.py"))}
    return [
        Import(name, imported, f"{file.relative_to(package.parent)}:{line}")
        for name, file in files.items()
        for imported, line in imports_of(name, file, set(files))
        if imported != package.name  # other modules only read its version
    ]


def imports_of(name: str, file: Path, modules: set[str]) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file imports, each with its line number."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:  # from . import x
                parents = name.split(".")[: -node.level + (file.name == "__init__.py") or None]
                start = ".".join([*parents, start]).rstrip(".")
            # The imported name is a module, or an object in a module.
            names = [
                full if (full := f"{start}.{alias.name}") in modules else start
                for alias in node.names
            ]
        else:
            continue
        yield from ((imported, node.lineno) for imported in names if imported in modules)


def upward(imports: list[Import]) -> list[str]:
    """Return the imports from a package in a layer above the importer's."""
    rank = {f"msseg_jax.{layer}": k for k, layer in enumerate(LAYERS)}

    def of(module: str) -> int:
        return rank[".".join(module.split(".")[:2])]

    return [
        f"{one}, a layer above" for one in imports
        if one.importer not in ENTRY_MODULES and of(one.imported) < of(one.importer)
    ]  # fmt: skip


def cycle(imports: list[Import]) -> list[str]:
    """Return the imports that form a cycle between modules; an empty list if there is none."""
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
    """Return the names of classes that are defined more than once, with file and line of each."""
    places = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                place = f"{file.relative_to(package.parent)}:{node.lineno}"
                places[node.name].append(place)
    return [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """Return all imports in msseg_jax."""
    return find_imports(PACKAGE)


def test_every_package_is_in_the_list_of_layers():
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert packages == set(LAYERS)


def test_no_module_imports_from_a_layer_above(imports):
    assert len(imports) > 100, "too few imports were found"
    found = upward(imports)
    assert not found, "\n".join(found)


def test_there_are_no_circular_imports(imports):
    found = cycle(imports)
    assert not found, "\n".join(found)


def test_no_two_classes_share_a_name():
    found = classes_of_one_name(PACKAGE)
    assert not found, "\n".join(found)


@pytest.fixture
def package(tmp_path) -> Path:
    """Write a package with an upward import, circular imports, and two classes of one name."""
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


def test_an_upward_import_is_reported_with_its_file(package):
    assert upward(find_imports(package)) == [
        "msseg_jax/volumes/grid.py:2 imports msseg_jax.data.cache, a layer above"
    ]


def test_all_imports_of_a_cycle_are_reported(package):
    found = find_imports(package)
    assert sorted(cycle(found)) == [
        "msseg_jax/data/cache.py:2 imports msseg_jax.volumes.grid",
        "msseg_jax/volumes/grid.py:2 imports msseg_jax.data.cache",
    ]
    assert len(found) == 4, "includes the relative imports of data/__init__.py and data/split.py"


def test_two_classes_with_one_name_are_reported_with_their_files(package):
    assert classes_of_one_name(package) == [
        "Grid: msseg_jax/data/split.py:3, msseg_jax/volumes/grid.py:3"
    ]
