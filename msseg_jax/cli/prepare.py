"""`msseg prepare`: bring the two scans of one patient, or of many patients, onto a common grid.

This module imports the optional libraries for preparing scans. `flags/prepare.py` checks that they
are installed.
"""

import argparse

from msseg_jax.cli.ending import last_line, patients_in_words, status_after
from msseg_jax.cli.requests import request_of
from msseg_jax.prepare.dataset import prepare_all
from msseg_jax.prepare.folder import PICTURE
from msseg_jax.prepare.patient import Prepared, prepare_patient
from msseg_jax.prepare.request import find_scans
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.paths import check_outside
from msseg_jax.system.progress import steps
from msseg_jax.system.text_table import text_table
from msseg_jax.system.words import warning_line


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0, or 1 if a patient failed."""
    return prepare_many(flags) if flags.dataset else prepare_one(flags)


def prepare_one(flags: argparse.Namespace) -> int:
    """Prepare one patient, show the steps, and return 0."""
    request = request_of(flags, flags.time01, flags.time02)
    # So that an incomplete folder is deleted after SIGTERM, as after Ctrl-C.
    with sigterm_as_ctrl_c(), steps("preparing") as say:
        prepared = prepare_patient(request, flags.output, flags.overwrite, say)
    name = flags.output.name
    print(table([name], {name: prepared}))
    content = f"brain of {prepared.record.brain.ml:.0f} ml"
    print(last_line("picture", flags.output / PICTURE, content, flags.began_s))
    return 0


def prepare_many(flags: argparse.Namespace) -> int:
    """Prepare all patients of a folder; return 1 if any fails, else 0.

    A patient that fails does not stop the others.
    """
    scans, problems = find_scans(flags.dataset, "--dataset")
    check_outside(flags.output, flags.dataset, "--output lies in --dataset, among the scans")
    requests = {name: request_of(flags, *paths) for name, paths in scans.items()}
    with sigterm_as_ctrl_c():
        prepared, failures = prepare_all(requests, flags.output, flags.overwrite, flags.jobs or 1)
    failures = dict(sorted((problems | failures).items()))
    names = sorted(prepared.keys() | failures.keys())
    print(table(names, prepared))
    status = status_after(failures, len(names), "patient")
    done_before = sum(one.was_there for one in prepared.values())
    content = patients_in_words(len(names), len(failures), done_before)
    print(last_line("pictures", flags.output / "*" / PICTURE, content, flags.began_s))
    return status


def table(names: list[str], prepared: dict[str, Prepared]) -> str:
    """Return a table with one line per patient, followed by all warnings."""
    rows: list[tuple[str, ...]] = [
        ("patient", "turned, deg", "moved, mm", "apart, mm", "correlation", "brain, ml", "time, s",
         ""),
    ]  # fmt: skip
    warnings = []
    for name in names:
        if name in prepared:
            rows.append(_row(name, prepared[name]))
            warnings += [warning_line(name, one) for one in prepared[name].record.warnings]
        else:
            rows.append((name, *("-",) * 6, "failed"))
    return "\n".join([text_table(rows, "<>>>>>><"), *warnings])


def _row(name: str, prepared: Prepared) -> tuple[str, ...]:
    record = prepared.record
    return (
        name,
        f"{record.registration.turned_degrees:.1f}",
        f"{record.registration.moved_mm:.1f}",
        f"{record.registration.apart_mm:.2f}",
        f"{record.registration.correlation:.3f}",
        f"{record.brain.ml:.0f}",
        f"{sum(record.seconds.values()):.0f}",
        "done before" if prepared.was_there else "",
    )
