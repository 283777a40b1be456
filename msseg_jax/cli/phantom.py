"""`msseg phantom`: make artificial patients."""

import argparse

from msseg_jax.cli.ending import last_line
from msseg_jax.simulate.phantom.writer import Summary, write_phantoms
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.text_table import text_table
from msseg_jax.system.words import count_of


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0."""
    with sigterm_as_ctrl_c():  # so that an incomplete patient is deleted
        summaries = write_phantoms(
            flags.output, flags.patients, flags.seed,
            jobs=flags.jobs, spacing_mm=flags.spacing_mm, overwrite=flags.overwrite,
        )  # fmt: skip
    print(table(summaries))
    content = count_of(len(summaries), "patient")
    print(last_line("patients", flags.output, content, flags.began_s))
    return 0


def table(summaries: list[Summary]) -> str:
    """Return a table with one line per patient."""
    rows = [("patient", "voxel, mm", "shape", "new lesions", "voxels", "mm3")]
    for s in summaries:
        spacing = " x ".join(f"{mm:g}" for mm in s.spacing_mm)
        shape = " x ".join(map(str, s.shape))
        counts = (str(s.new_lesions), str(s.new_lesion_voxels), f"{s.new_lesion_mm3:.0f}")
        rows.append((s.patient, spacing, shape, *counts))
    return text_table(rows, "<<<>>>")
