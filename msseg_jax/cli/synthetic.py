"""`msseg synthetic`: make labelled pairs from real scans.

This module imports the optional libraries for preparing scans. `flags/synthetic.py` checks that
they are installed.
"""

import argparse

from msseg_jax.cli.ending import last_line, status_after
from msseg_jax.simulate.synthetic.writer import SyntheticRequest, write_synthetic
from msseg_jax.system.interruption import sigterm_as_ctrl_c
from msseg_jax.system.words import count_of


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 1 if a scan could not be used, else 0."""
    request = SyntheticRequest(
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
    with sigterm_as_ctrl_c():  # so that an incomplete pair is deleted
        records, failures = write_synthetic(request)
    for record in records:
        volumes = ", ".join(f"{mm3:.0f}" for mm3 in record["new_lesions_mm3"])
        print(
            f"{record['patient']}  {record['new_lesions']} new  {volumes}{' mm3' * bool(volumes)}"
        )
    scans = len({record["source"] for record in records}) + len(failures)
    status = status_after(failures, scans, "scan")
    content = count_of(len(records), "pair")
    print(last_line("pairs", flags.output, content, flags.began_s))
    return status
