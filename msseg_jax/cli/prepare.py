"""From two scans of a patient to a pair that a network can read, or from those of many patients.

    python -m msseg_jax.prepare --time01=SCAN --time02=SCAN --output=DIR/PATIENT
    python -m msseg_jax.prepare --dataset=SCANS --output=DIR

For research, not for clinical use.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from msseg_jax.cli.ending import run_command, status_after
from msseg_jax.prepare.many import Outcome, prepare_all
from msseg_jax.prepare.request import (
    add_arguments,
    check_arguments,
    check_libraries,
    find_scans,
    request_of,
)
from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.machine import limit_threads
from msseg_jax.system.progress import steps

PROGRAM = "python -m msseg_jax.prepare"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        PROGRAM, allow_abbrev=False,
        description="Bring two FLAIR scans of a patient onto a grid half-way between them, with a "
        "brain mask and without bias field. For research, not for clinical use.",
        epilog="A scan is a NIfTI file, or a folder with the DICOM files of a series.",
    )  # fmt: skip
    one = parser.add_argument_group("one patient")
    one.add_argument("-t1", "--time01", type=Path, metavar="SCAN", help="FLAIR of the first visit")
    one.add_argument("-t2", "--time02", type=Path, metavar="SCAN", help="FLAIR of the second visit")
    many = parser.add_argument_group("many patients")
    many.add_argument(
        "--dataset", type=Path, metavar="SCANS",
        help="folder with a folder for each patient, and in that two entries whose names begin "
        "with time01 and time02 (or flair_time01, flair_time02): NIfTI files or DICOM folders",
    )  # fmt: skip
    many.add_argument("--jobs", type=int, metavar="N", help="patients at the same time; default: 1")
    add_arguments(parser)
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder to make, in the MSSEG-2 layout; its name is the patient's. With --dataset the "
        "folder for a folder per patient",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="make again what was made before")
    parser.add_argument("--threads", type=int, metavar="N", help="processors to use; default: all")
    flags = parser.parse_args(arguments)
    if flags.dataset is not None:
        if flags.time01 or flags.time02:
            parser.error("--dataset and -t1, -t2 exclude each other: give one or the other")
    elif flags.time01 is None or flags.time02 is None:
        parser.error("wanted -t1 and -t2 (one patient), or --dataset (many)")
    elif flags.jobs is not None:
        parser.error("--jobs is of --dataset, patients at the same time; for one give --threads")
    check_arguments(parser, flags)
    for name in ("jobs", "threads"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; wanted 1 or more")
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 if anything failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    flags = parse_arguments(arguments)
    if flags.threads:
        limit_threads(flags.threads)
    # So that what is half-made is cleared away, as after Ctrl-C.
    with sigterm_as_ctrl_c():
        return run_command(PROGRAM, partial(prepare_many if flags.dataset else prepare_one, flags))


def prepare_one(flags: argparse.Namespace) -> int:
    """One patient, step by step."""
    check_libraries()
    from msseg_jax.prepare.patient import PICTURE, prepare_patient

    request = request_of(flags, flags.time01, flags.time02)
    with steps("preparing") as say:
        prepared = prepare_patient(request, flags.output, flags.overwrite, say)
    outcome = Outcome(flags.output.name, prepared.record, prepared.was_there)
    print(table([outcome]))
    print(f"look at {flags.output / PICTURE}")
    return 0


def prepare_many(flags: argparse.Namespace) -> int:
    """All patients of a folder, going on after one that fails."""
    check_libraries()
    scans = find_scans(flags.dataset)
    output = flags.output.resolve()
    if output == flags.dataset.resolve() or flags.dataset.resolve() in output.parents:
        raise InputError(
            f"{flags.output}: lies in --dataset, among the scans; choose a folder elsewhere"
        )
    requests = {name: request_of(flags, *paths) for name, paths in scans.items()}
    outcomes = prepare_all(requests, flags.output, flags.overwrite, flags.jobs or 1)
    print(table(outcomes))
    failures = {outcome.patient: outcome.failure for outcome in outcomes if outcome.failure}
    return status_after(failures, len(outcomes), "patients")


def table(outcomes: list[Outcome]) -> str:
    """What became of each patient, a line each, and below it what to know of some."""
    rows = [
        ("patient", "turned, deg", "moved, mm", "apart, mm", "correlation", "brain, ml", "time, s",
         ""),
        *(_row(outcome) for outcome in outcomes),
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < column < 7 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for outcome in outcomes:
        for warning in (outcome.record or {}).get("warnings", ()):
            lines.append(f"{outcome.patient}: warning: {warning}")
    return "\n".join(lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    if outcome.record is None:
        return (outcome.patient, *("-",) * 6, "failed")
    registration, brain = outcome.record["registration"], outcome.record["brain"]
    return (
        outcome.patient,
        f"{registration['turned_degrees']:.1f}",
        f"{registration['moved_mm']:.1f}",
        f"{registration['apart_mm']:.2f}",
        f"{registration['correlation']:.3f}",
        f"{brain['ml']:.0f}",
        f"{sum(outcome.record['seconds'].values()):.0f}",
        "done before" if outcome.was_there else "",
    )


if __name__ == "__main__":
    sys.exit(main())
