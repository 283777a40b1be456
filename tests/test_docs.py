"""Check the documentation: generated pages, links, commands, length of the README."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from msseg_jax.cli.command_line import build_parser
from msseg_jax.cli.main import COMMANDS
from tests.support.session import ROOT

GENERATE = ROOT / "docs" / "reference" / "generate.py"
TOP = [path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", ["commands.md", "configuration.md"])
def test_the_generated_reference_pages_are_up_to_date(page):
    expected = runpy.run_path(str(GENERATE))["pages"]()[page]
    found = (GENERATE.parent / page).read_text()
    assert found == expected, "run: python docs/reference/generate.py"


def test_the_reference_lists_every_command_flag_and_field():
    commands = (GENERATE.parent / "commands.md").read_text()
    for name in COMMANDS:
        for action in build_parser(name, name)._actions:
            for flag in action.option_strings:
                assert f"`{flag}`" in commands or flag in ("-h", "--help"), (name, flag)
    fields = (GENERATE.parent / "configuration.md").read_text()
    for field in ("seed", "batch_size", "patch_size", "percentiles", "min_lesion_mm3"):
        assert f"| `{field}` |" in fields


def test_the_readme_has_at_most_120_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_and_pictures_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "#")):
            file = page.parent / target.partition("#")[0]
            assert file.exists(), f"{name_of(page)} links to {target}"


def commands_in(page: Path) -> list[str]:
    """Return the `msseg` command lines in the code blocks of a page."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("msseg ")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_flags_of_commands_exist(page, capsys):
    for line in commands_in(page):
        _, name, *arguments = shlex.split(line, comments=True)
        if name.startswith("-") or "..." in arguments:
            continue
        parser = build_parser(name, f"msseg {name}")
        given = [argument for argument in arguments if argument.startswith("-")]
        given = [argument for argument in given if not argument.startswith("--config.")]
        known = parser._option_string_actions
        for flag in given:
            assert flag.partition("=")[0] in known, f"{name_of(page)}: {line}"


def test_commands_are_found_in_pages():
    found = {line.split()[1] for page in PAGES for line in commands_in(page)}
    assert {"predict", "prepare", "evaluate", "export", "phantom", "synthetic"} <= found
