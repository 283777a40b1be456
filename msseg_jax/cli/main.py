"""The entry point: find the command, parse its flags, set the threads, import its work, run it."""

import importlib
import logging
import sys
from collections.abc import Sequence

from msseg_jax import __version__
from msseg_jax.cli.command_line import Parser, parse
from msseg_jax.cli.ending import run_command
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED, ended_by_signals
from msseg_jax.system.machine import keep_freed_memory, limit_threads

PROGRAM = "msseg"
COMMANDS = {
    "predict": "find new lesions, of one pair of scans or of a folder of pairs",
    "prepare": "bring two scans as they left the scanner onto one grid",
    "train": "train a network on labelled pairs, or continue a training",
    "evaluate": "score predicted masks against reference masks",
    "export": "write trained networks into one file, or show what such a file holds",
    "phantom": "make artificial patients to try everything with",
    "synthetic": "make labelled pairs from real scans",
    "describe": "print the layers of a network",
}
RUNS_A_NETWORK = ("predict", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
      arguments: without the program's name; None takes those of this process.

    Returns:
      The exit status: 0, or what the command's documentation says. Wrong flags exit with 2.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in COMMANDS:
        _parse_without_command(arguments)
    return run(arguments[0], arguments[1:], f"{PROGRAM} {arguments[0]}")


def run(name: str, arguments: Sequence[str], program: str) -> int:
    """Run one command and return its exit status.

    Args:
      program: how the user calls the command, for messages.
    """
    return run_command(program, lambda: _run(name, arguments, program))


def _run(name: str, arguments: Sequence[str], program: str) -> int:
    flags = parse(name, arguments, program)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if name in RUNS_A_NETWORK:
        keep_freed_memory()
    if getattr(flags, "threads", None):
        limit_threads(flags.threads)
    # Imported now: JAX and ITK start their threads when they are imported.
    status = EXIT_STATUS if name == "train" else 1
    with ended_by_signals(f"{program}: {INTERRUPTED}", status):
        work = importlib.import_module(f"msseg_jax.cli.{flags.work}")
    return work.run(flags)


def _parse_without_command(arguments: Sequence[str]) -> None:
    """Answer --help and --version, or report that there is no such command; then exit."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        PROGRAM,
        ["predict -t1 first.nii.gz -t2 second.nii.gz --prepare -o new.nii.gz --report new.html"],
        usage=f"{PROGRAM} COMMAND [FLAGS]",
        description="Find the multiple-sclerosis lesions that are new at the second of two FLAIR "
        "visits.\nFor research, not for clinical use.",
        epilog=f"commands:\n{listed}\n\n{PROGRAM} COMMAND --help lists the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    if not arguments or arguments[0].startswith("-"):
        _, arguments = parser.parse_known_args(arguments)
    if arguments:
        expected = f"expected one of {', '.join(COMMANDS)}"
        parser.error(f"{arguments[0]!r} is neither a command nor a flag; {expected}")
    parser.print_help()
    parser.exit(0)
