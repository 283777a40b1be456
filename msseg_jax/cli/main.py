"""The entry point: find the command, parse its flags, set the threads, and run the command."""

import importlib
import logging
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from msseg_jax import __version__
from msseg_jax.cli.command_line import Parser, did_you_mean, parse
from msseg_jax.cli.ending import run_command
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED, ended_by_signals
from msseg_jax.system.machine import (
    keep_freed_memory,
    limit_threads,
    without_garbage_collection,
)

PROGRAM = "msseg"
COMMANDS = {
    "predict": "find the new lesions of one pair of scans, or of a folder of pairs",
    "prepare": "bring two raw scans of a patient onto a common grid",
    "train": "train a network on labelled pairs, or resume a training",
    "evaluate": "score predicted masks against reference masks",
    "export": "write trained networks into one model file, or show what such a file holds",
    "phantom": "make artificial patients, for tests and first steps",
    "synthetic": "make labelled pairs from real scans",
    "describe": "print the layers of a network",
}
RUNS_A_NETWORK = ("predict", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
      arguments: the arguments after the name of the program. None: the arguments of this process.

    Returns:
      The exit status of the command. 0 means success. For other values, see the function `run` in
      the module of the command.

    Raises:
      SystemExit: with 2 after wrong flags, and with 0 after --help or --version.
    """
    owns_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in COMMANDS:
        return run_command(PROGRAM, lambda: _parse_without_command(arguments))
    name = arguments[0]
    return run(name, arguments[1:], f"{PROGRAM} {name}", owns_process=owns_process)


def run(name: str, arguments: Sequence[str], program: str, *, owns_process: bool = False) -> int:
    """Run one command and return its exit status.

    Args:
      name: one of COMMANDS.
      arguments: the arguments after the name of the command.
      program: how the user calls the command, for messages.
      owns_process: whether the process ends after this command.
    """
    began_s = time.perf_counter()

    def work() -> int:
        return _run(name, arguments, program, began_s)

    return run_command(program, work, owns_process=owns_process)


def _run(name: str, arguments: Sequence[str], program: str, began_s: float) -> int:
    flags = parse(name, arguments, program)
    flags.began_s = began_s
    show_warnings()
    if name in RUNS_A_NETWORK:
        keep_freed_memory()
    if getattr(flags, "threads", None):
        limit_threads(flags.threads)
    # Imported after the number of threads is set: JAX and ITK start their threads on import.
    status = EXIT_STATUS if name == "train" else 1
    with ended_by_signals(f"{program}: {INTERRUPTED}", status), without_garbage_collection():
        work = importlib.import_module(f"msseg_jax.cli.{flags.work}")
    return work.run(flags)


def show_warnings() -> None:
    """Print warnings that are logged, each once. A file that is read again gives them again."""
    handler, printed = logging.StreamHandler(), set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in printed:
            return False
        printed.add(message)
        return True

    handler.addFilter(is_new)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )


def _parse_without_command(arguments: Sequence[str]) -> NoReturn:
    """Print the help or the version, or report an unknown command; then exit."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        PROGRAM,
        ["predict -t1 first.nii.gz -t2 second.nii.gz --prepare -o new.nii.gz --report new.html"],
        usage=f"{PROGRAM} COMMAND [FLAGS]",
        description="Find multiple-sclerosis lesions that are new in the second of two FLAIR "
        "scans.\nFor research, not for clinical use.",
        epilog=f"commands:\n{listed}\n\n{PROGRAM} COMMAND --help lists the flags of a command.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"{PROGRAM} {__version__}",
        help="Show the version and exit.",
    )
    if not arguments or arguments[0].startswith("-"):
        _, arguments = parser.parse_known_args(arguments)
    if arguments:
        name = arguments[0]
        expected = f"Expected one of {', '.join(COMMANDS)}."
        hint = did_you_mean(name, [*COMMANDS, "--help", "--version"])
        parser.error(f"{name!r} is neither a command nor a flag. {expected}{hint}")
    parser.print_help()
    parser.exit(0)
