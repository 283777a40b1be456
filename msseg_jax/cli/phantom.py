"""Command line: flags -> one call. See the package's docstring."""

from pathlib import Path

from absl import app, flags

from msseg_jax.simulate.phantom.writer import Summary, write_phantoms
from msseg_jax.system.errors import InputError

OUTPUT = flags.DEFINE_string("output", None, "Folder for the data set.", required=True)
PATIENTS = flags.DEFINE_integer("patients", 8, "How many; 29 of 40 have new lesions.")
SEED = flags.DEFINE_integer("seed", 0, "Same seed, same bytes.")
JOBS = flags.DEFINE_integer("jobs", None, "Processes; all cores by default.")
SPACING_MM = flags.DEFINE_float(
    "spacing_mm", None, "Voxel size for all patients (0.5 to 4); a different one each by default."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace patients of the same name.")


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


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(
            f"unexpected argument {argv[1]!r}; all settings are flags: --name=value"
        )
    try:
        summaries = write_phantoms(
            Path(OUTPUT.value),
            PATIENTS.value,
            SEED.value,
            jobs=JOBS.value,
            spacing_mm=SPACING_MM.value,
            overwrite=OVERWRITE.value,
        )
    except (InputError, OSError) as error:
        raise SystemExit(f"phantom: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("phantom: stopped; each patient in the folder is complete") from None
    print(table(summaries))


if __name__ == "__main__":
    app.run(main)
