"""Make a request to prepare scans from the flags that `predict` and `prepare` share."""

import argparse
from pathlib import Path

from msseg_jax.prepare.request import Request


def request_of(flags: argparse.Namespace, time01: Path, time02: Path) -> Request:
    """Return the request to prepare one pair of scans with the given flags."""
    series = flags.series or [None]
    acquisitions = flags.acquisition or [None]
    masks = (flags.brain_mask01, flags.brain_mask02)
    return Request(
        time01, time02, (series[0], series[-1]), masks, flags.brain_mask_command,
        (acquisitions[0], acquisitions[-1]), flags.allow_reversed,
    )  # fmt: skip
