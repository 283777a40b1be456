"""Check habits of language that make texts hard to read."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.session import ROOT

# The plain word is in the comment.
ODD_WORDS = re.compile(
    r"\b("
    r"wanted"  # expected, requested
    r"|anew"  # again
    r"|goes on|go on"  # continues
    r"|whoever"  # anyone who, if you
    r"|alone"  # only, by itself
    r"|told of"
    r")\b",
    re.IGNORECASE,
)
# A docstring says what the function does or returns: "Return ...", "Read ...".
NO_VERB = re.compile(
    r"(The|A|An|What|Of|How|Whose|Where|Whether|That|Which|Who|When|Why|As|From|To|In|On|If)\b"
)
SUFFIXES = {".py", ".md", ".cc", ".html", ".toml", ".txt"}
FOLDERS = ("msseg_jax", "benchmarks", "configs", "docs", "tests")
TOP = ("README", "BUILD", "CONTRIBUTING", "CHANGELOG", "MODEL_CARD")
HERE = Path(__file__)


def texts() -> list[Path]:
    """Return all files with words for readers."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*"))]
    files += [ROOT / f"{name}.md" for name in TOP]
    return [file for file in files if file.suffix in SUFFIXES and file != HERE]


def docstrings_without_verb(source: str) -> list[str]:
    """Return the functions with a docstring that does not begin with a verb, and that docstring."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue  # a property may be described by a noun
        first = (ast.get_docstring(node) or "").partition("\n")[0]
        if NO_VERB.match(first):
            found.append(f"{node.name}: {first}")
    return found


def test_no_text_uses_the_odd_words():
    files = texts()
    assert len(files) > 250
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if ODD_WORDS.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", ["msseg_jax", "benchmarks", "configs"])
def test_docstrings_of_functions_begin_with_a_verb(folder):
    found = [
        f"{file.relative_to(ROOT)}: {line}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for line in docstrings_without_verb(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_a_docstring_without_a_verb_is_found():
    source = 'def f():\n    """What f gives."""\ndef g():\n    """Return one."""\n'
    assert docstrings_without_verb(source) == ["f: What f gives."]
