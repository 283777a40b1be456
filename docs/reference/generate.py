"""Write the reference pages that follow from the code: the flags and the configuration fields.

    python docs/reference/generate.py

`tests/test_docs.py` fails if the pages differ from what this writes.
"""

import argparse
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from msseg_jax.cli.command_line import Parser, build_parser, flags_of
from msseg_jax.cli.main import COMMANDS, PROGRAM
from msseg_jax.configuration.listing import ListedField, listed_fields

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/reference/generate.py. Do not edit. -->\n"


def pages() -> dict[str, str]:
    """Return the text of each generated page, by its file name."""
    return {"commands.md": _commands(), "configuration.md": _configuration()}


# ------------------------------------------------------------------------------------- commands


def _commands() -> str:
    listed = "\n".join(f"- [`{PROGRAM} {name}`](#{PROGRAM}-{name}): {text}"
                       for name, text in COMMANDS.items())  # fmt: skip
    sections = "\n".join(_command(name) for name in COMMANDS)
    return (
        f"{NOTE}# Commands\n\n{listed}\n\n"
        f"`{PROGRAM} COMMAND --help` prints the same in a terminal. `python -m msseg_jax` is the "
        f"same as `{PROGRAM}`. `python launch.py` takes the flags of `{PROGRAM} train`.\n\n"
        "A flag and its value can be separated by a space or by `=`.\n\n"
        f"{sections}"
    )


def _command(name: str) -> str:
    """Return the section of one command: examples, description, and a table per group of flags."""
    declared = flags_of(name)
    parser = build_parser(name, f"{PROGRAM} {name}")
    examples = "\n".join(f"{PROGRAM} {name} {example}" for example in declared.EXAMPLES)
    text = f"## `{PROGRAM} {name}`\n\n{_escape(declared.DESCRIPTION)}\n\n```bash\n{examples}\n```\n"
    for group in parser._action_groups:
        rows = [_flag(parser, action) for action in group._group_actions if _is_listed(action)]
        if rows:
            title = (
                ""
                if group.title in ("options", None)
                else f"\n**{group.title[0].upper()}{group.title[1:]}**\n"
            )
            text += f"{title}\n| flag | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"
    return text


def _is_listed(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)


def _flag(parser: Parser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.dest}`"
    value = f" `{value}`" if value and action.option_strings else ""
    return f"| {names}{value} | {_escape(formatter._expand_help(action))} |"


# -------------------------------------------------------------------------------- configuration


def _configuration() -> str:
    return (
        f"{NOTE}# Configuration fields\n\n"
        "Set a field on the command line of `msseg train` or `launch.py`, for instance "
        "`--config.train.epochs=10`. The defaults are the constants of the paper. Files in "
        "`configs/` set other values.\n\n"
        "Write a tuple in quotes, such as `--config.data.percentiles='(1,50,99)'`. "
        "`=None` empties a field that may be empty.\n" + "".join(_sections())
    )


def _sections() -> Iterator[str]:
    """Yield the headings and tables of all sections, line by line."""
    for section, fields in groupby(listed_fields(), key=lambda field: field.section):
        yield f"\n## `{section}`\n\n| field | default | meaning |\n|---|---|---|\n"
        for field in fields:
            yield f"| `{field.name}` | `{field.default!r}` | {_meaning(field)} |\n"


def _meaning(field: ListedField) -> str:
    limits = f" ({field.limits})" if field.limits else ""
    return _escape(field.text + limits)


def _escape(text: str) -> str:
    """Return text for a Markdown table: one line, flags as code, special characters escaped."""
    text = re.sub(r'"([^"]+ -[^"]+)"', r"`\1`", " ".join(text.split()))  # a quoted command line
    parts = text.split("`")  # every second part is code
    for k in range(0, len(parts), 2):
        parts[k] = re.sub(r"(?<![\w-])(--?[a-z]\w*)", r"`\1`", parts[k])
        parts[k] = re.sub(r"([<>*])", r"\\\1", parts[k])
    return "`".join(parts).replace("|", r"\|")


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf-8")
