"""From the flags that say how scans are prepared to a request; `predict` and `prepare` share it."""

import argparse
from pathlib import Path

from msseg_jax.prepare.request import Request


def request_of(flags: argparse.Namespace, time01: Path, time02: Path) -> Request:
    """Return the request for one pair of scans, prepared as the flags say."""
    series = flags.series or [None]
    masks = (flags.brain_mask01, flags.brain_mask02)
    return Request(time01, time02, (series[0], series[-1]), masks, flags.brain_mask_command)
