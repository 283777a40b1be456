"""Read the options with which networks are applied, from the flags of a benchmark."""

import argparse

OPTIONS = {"threshold": float, "min_lesion_mm3": float, "min_peak": float, "flips": int}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for each option. The default is the option stored with the networks."""
    for name, kind in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, help="replaces the stored option")


def given_options(flags: argparse.Namespace) -> dict[str, float | None]:
    """Return the options that were given, as `Ensemble.options` takes them; else None."""
    return {name: getattr(flags, name) for name in OPTIONS}
