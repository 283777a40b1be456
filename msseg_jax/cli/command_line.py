"""Parse the arguments of one command."""

import argparse
import contextlib
import difflib
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

FIELDS = ("config.", "noconfig.")  # overrides begin with one of these, after the dashes


FREE_TEXT = "TEXT"  # the metavariable of flags with values that may be empty


class _StoreOnce(argparse._StoreAction):
    """Store a value, and refuse a second one. argparse would silently take the last."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault(_GIVEN, set())
        if self.dest in given:
            raise argparse.ArgumentError(self, "is given twice. Give it once")
        given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


_GIVEN = "_given"  # attribute of a namespace: the flags that have a value


class Parser(argparse.ArgumentParser):
    """A parser with examples at the top of its help, and with errors in one line.

    A flag with one value can be given once, and only a free text may be empty.
    """

    def __init__(self, program: str, examples: Sequence[str], **settings: Any):
        super().__init__(
            program,
            allow_abbrev=False,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )
        self.register("action", None, _StoreOnce)
        self.register("action", "store", _StoreOnce)
        self._examples = examples
        self._called = f"python {program}" if program.endswith(".py") else program
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")

    def format_help(self) -> str:
        """Return the help, with the examples first."""
        lines = "".join(f"  {self._called} {example}\n" for example in self._examples)
        return f"examples:\n{lines}\n{super().format_help()}"

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Convert the text of a value. An empty path would mean the current folder."""
        if not arg_string and action.metavar != FREE_TEXT:
            raise argparse.ArgumentError(
                action, f"the value is empty. Expected {action.metavar or 'a value'}"
            )
        return super()._get_value(action, arg_string)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Print a message to standard error and exit."""
        if message and sys.stderr is not None:
            with contextlib.suppress(OSError):  # nobody may be reading
                sys.stderr.write(message)
        sys.exit(status)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a help or a version. argparse would hide that the output cannot be written."""
        stream = sys.stdout if file is None else file
        if stream is not None:
            stream.write(message)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and how to get help, in place of the whole usage; exit with 2."""
        message = message.removeprefix("argument ")  # argparse puts it before the flag
        stop = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"{self.prog}: error: {message}{stop} See {self._called} --help.\n")

    def check_flags_exist(self, arguments: Sequence[str], *, overrides: bool) -> None:
        """Exit with 2 if there is an argument that no flag takes; suggest the most similar flag.

        Run this before `parse_args`. Otherwise a misspelt required flag would be reported as
        missing.

        Args:
          arguments: from the command line.
          overrides: fields of the configuration, such as --config.seed=1, are allowed.
        """
        if not {"-h", "--help"}.isdisjoint(arguments):
            return  # `parse_args` prints the help, with required flags marked as required
        known = self._option_string_actions
        for argument in arguments:
            name = argument.partition("=")[0]
            if f"-{name}" in known and name not in known:
                # argparse would read -output=x as -o with the value utput=x.
                self.error(f"unknown flag {argument}. Did you mean -{name}?")
        required = [action for action in self._actions if action.required]
        try:
            for action in required:
                action.required = False
            _, rest = self.parse_known_args(arguments)
        finally:
            for action in required:
                action.required = True
        strays = _strays(rest) if overrides else rest
        if not strays:
            return
        unknown = [argument for argument in strays if argument.startswith("-")]
        if not unknown:
            advice = "Write each flag as --name=value"
            if "-t1" in known:
                advice = "Give the scans as -t1 FIRST -t2 SECOND, and other flags as --name=value"
            self.error(f"unexpected argument {strays[0]!r}. {advice}")
        self.error(" ".join(self._unknown_flag(argument) for argument in unknown))

    def _unknown_flag(self, argument: str) -> str:
        name, dot, field = argument.partition("=")[0].partition(".")
        hint = did_you_mean(name, self._option_string_actions, dot + field)
        return f"unknown flag {argument}.{hint}"


def did_you_mean(name: str, known: Iterable[str], ending: str = "") -> str:
    """Return the question "Did you mean ...?" with the most similar known name.

    If no known name is similar, return "".

    Args:
      ending: text that is added after the suggested name.
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}{ending}?" if close else ""


def parse(name: str, arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Return the flags of a command. `flags.work` names the module of `cli` that does the work.

    A command that sets `OVERRIDES` also takes fields of the configuration, such as
    --config.seed=1. They are returned unchanged in `flags.overrides`.

    Args:
      name: name of the command.
      arguments: the arguments that follow it.
      program: how the user calls the command, for messages.
    """
    declared = flags_of(name)
    parser = build_parser(name, program)
    takes_overrides = getattr(declared, "OVERRIDES", None) is not None
    parser.check_flags_exist(arguments, overrides=takes_overrides)
    if not takes_overrides:
        flags = parser.parse_args(arguments)
    else:
        flags, flags.overrides = parser.parse_known_args(arguments)
    vars(flags).pop(_GIVEN, None)
    flags.work = name
    if hasattr(declared, "check"):
        declared.check(parser, flags)
    return flags


def build_parser(name: str, program: str) -> Parser:
    """Return the parser of a command."""
    declared = flags_of(name)
    parser = Parser(program, declared.EXAMPLES, description=declared.DESCRIPTION)
    declared.add_flags(parser)
    return parser


def flags_of(name: str) -> ModuleType:
    """Return the module of `cli.flags` that declares the flags of a command."""
    return import_module(f"msseg_jax.cli.flags.{name}")


def _strays(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that are neither fields of the configuration nor values of fields."""
    strays = []
    takes_value = False
    for argument in arguments:
        is_field = argument.lstrip("-").startswith(FIELDS) and argument.startswith("-")
        if not is_field and not (takes_value and not argument.startswith("--")):
            strays.append(argument)
        takes_value = is_field and "=" not in argument
    return strays
