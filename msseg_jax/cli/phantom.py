"""`msseg phantom`: make artificial patients."""

import argparse

from msseg_jax.simulate.phantom.writer import Summary, write_phantoms


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0."""
    summaries = write_phantoms(
        flags.output, flags.patients, flags.seed,
        jobs=flags.jobs, spacing_mm=flags.spacing_mm, overwrite=flags.overwrite,
    )  # fmt: skip
    print(table(summaries))
    return 0


def table(summaries: list[Summary]) -> str:
    """The summaries as text, one line each."""
    rows = [("patient", "voxel, mm", "shape", "new lesions", "voxels", "mm3")]
    for s in summaries:
        spacing = " x ".join(f"{mm:g}" for mm in s.spacing_mm)
        shape = " x ".join(map(str, s.shape))
        counts = (str(s.new_lesions), str(s.new_lesion_voxels), f"{s.new_lesion_mm3:.0f}")
        rows.append((s.patient, spacing, shape, *counts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
