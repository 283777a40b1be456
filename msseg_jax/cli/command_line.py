"""From arguments to the flags of one command."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any

FIELDS = ("config.", "noconfig.")  # how overrides begin, after the dashes


class Parser(argparse.ArgumentParser):
    """A parser whose help begins with examples."""

    def __init__(self, program: str, examples: Sequence[str], **settings: Any):
        super().__init__(
            program,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )
        self._examples = examples

    def format_help(self) -> str:
        called = f"python {self.prog}" if self.prog.endswith(".py") else self.prog
        lines = "".join(f"  {called} {example}\n" for example in self._examples)
        return f"examples:\n{lines}\n{super().format_help()}"


def parse(name: str, arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Return the flags of a command, and in `flags.work` the module of `cli` that does the work.

    A command that sets `OVERRIDES` also takes fields of the configuration, such as
    --config.seed=1. They are returned as they were given, in `flags.overrides`.

    Args:
      name: of the command.
      program: how the user calls it, for messages.
    """
    declared = import_module(f"msseg_jax.cli.flags.{name}")
    parser = Parser(program, declared.EXAMPLES, description=declared.DESCRIPTION)
    declared.add_flags(parser)
    if getattr(declared, "OVERRIDES", None) is None:
        flags = parser.parse_args(arguments)
    else:
        flags, flags.overrides = parser.parse_known_args(arguments)
        if strays := _strays(flags.overrides):
            parser.error(f"unrecognized arguments: {' '.join(strays)}")
    flags.work = name
    if hasattr(declared, "check"):
        declared.check(parser, flags)
    return flags


def _strays(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that are neither fields of the configuration nor values of such."""
    strays = []
    takes_value = False
    for argument in arguments:
        is_field = argument.lstrip("-").startswith(FIELDS) and argument.startswith("-")
        if not is_field and not (takes_value and not argument.startswith("--")):
            strays.append(argument)
        takes_value = is_field and "=" not in argument
    return strays
