"""Check the documentation: generated pages, links, commands, length of the README."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from msseg_jax.cli.command_line import build_parser
from msseg_jax.cli.main import COMMANDS
from msseg_jax.configuration.listing import listed_fields
from tests.support.session import ROOT

GENERATE = ROOT / "docs" / "reference" / "generate.py"
TOP = [path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]


FIELDS = {(field.section, field.name) for field in listed_fields()}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", ["commands.md", "configuration.md"])
def test_the_generated_reference_pages_are_up_to_date(page):
    expected = runpy.run_path(str(GENERATE))["pages"]()[page]
    found = (GENERATE.parent / page).read_text(encoding="utf-8")
    assert found == expected, "run: python docs/reference/generate.py"


def test_the_reference_lists_every_command_flag_and_field():
    commands = (GENERATE.parent / "commands.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        for action in build_parser(name, name)._actions:
            for flag in action.option_strings:
                assert f"`{flag}`" in commands or flag in ("-h", "--help"), (name, flag)
    fields = (GENERATE.parent / "configuration.md").read_text(encoding="utf-8")
    for field in ("seed", "batch_size", "patch_size", "percentiles", "min_lesion_mm3"):
        assert f"| `{field}` |" in fields


def test_the_readme_has_at_most_120_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_and_pictures_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "#")):
            file = page.parent / target.partition("#")[0]
            assert file.exists(), f"{name_of(page)} links to {target}"


def commands_in(page: Path) -> list[list[str]]:
    """Return the command lines of this project in the code blocks of a page, as words.

    Each begins with the name of the command, such as 'predict'.
    """
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    found = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        line = re.sub(r"^\s*([A-Z_]+=\S+ )*(time )?", "", line)  # variables of the environment
        line = re.sub(r"^python -m msseg_jax |^msseg ", "", was := line)
        line = re.sub(r"^python launch.py ", "train ", line)
        if line != was and "..." not in line and "$scans" not in line:
            found.append(shlex.split(line, comments=True))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_flags_and_fields_of_commands_exist(page):
    for name, *arguments in commands_in(page):
        if name.startswith("-") or name == "COMMAND":
            continue  # msseg --help
        known = build_parser(name, f"msseg {name}")._option_string_actions
        for argument in arguments:
            flag = argument.partition("=")[0]
            if flag.startswith("--config."):
                section, _, field = flag.removeprefix("--").rpartition(".")
                assert (section, field) in FIELDS, f"{name_of(page)}: {argument}"
            elif flag.startswith("-"):
                assert flag in known, f"{name_of(page)}: msseg {name} {argument}"


def test_commands_are_found_in_pages():
    found = {words[0] for page in PAGES for words in commands_in(page)}
    assert {"predict", "prepare", "evaluate", "export", "phantom", "synthetic", "train"} <= found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_headings_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if target.startswith(("http:", "https:")) or not anchor:
            continue
        file = page.parent / path if path else page
        assert anchor in anchors_of(file), f"{name_of(page)} links to {target}"


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
