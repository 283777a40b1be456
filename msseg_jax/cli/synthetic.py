"""`msseg synthetic`: make labelled pairs from real scans."""

import argparse

from msseg_jax.cli.ending import status_after
from msseg_jax.simulate.synthetic.writer import Request, write_synthetic


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 1 if a scan could not be used, else 0."""
    request = Request(
        scans=tuple(flags.scans),
        masks=tuple(flags.masks),
        output=flags.output,
        shapes=tuple(flags.shapes),
        leave_out=tuple(flags.leave_out),
        pairs=flags.pairs,
        seed=flags.seed,
        jobs=flags.jobs,
        overwrite=flags.overwrite,
        find_brains=flags.find_brains,
        brain_size=flags.brain_size,
        least_contrast=flags.least_contrast,
    )
    outcomes = write_synthetic(request)
    for record in (record for outcome in outcomes for record in outcome.records):
        volumes = ", ".join(f"{mm3:.0f}" for mm3 in record["new_lesions_mm3"])
        print(
            f"{record['patient']}  {record['new_lesions']} new  {volumes}{' mm3' * bool(volumes)}"
        )
    failures = {outcome.source: outcome.failure for outcome in outcomes if outcome.failure}
    return status_after(failures, len(outcomes), "scans")
