"""From two scans of a patient to a pair that a network can read, or from those of many patients.

    python -m msseg_jax.prepare --time01=SCAN --time02=SCAN --output=DIR/PATIENT
    python -m msseg_jax.prepare --dataset=SCANS --output=DIR

For research, not for clinical use.
"""

import argparse

from msseg_jax.cli.ending import status_after
from msseg_jax.prepare.many import Outcome, prepare_all
from msseg_jax.prepare.request import (
    check_libraries,
    find_scans,
    request_of,
)
from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.progress import steps


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0, or 1 if a patient failed."""
    check_libraries()
    # So that what is half-made is cleared away, as after Ctrl-C.
    with sigterm_as_ctrl_c():
        return prepare_many(flags) if flags.dataset else prepare_one(flags)


def prepare_one(flags: argparse.Namespace) -> int:
    """One patient, step by step."""
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
