"""The flags of `msseg export`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags.values import of_setting
from msseg_jax.configuration.sections import PredictSettings

EXAMPLES = ("--model runs/mine -o mine.safetensors --name mine", "--show mine.safetensors")
DESCRIPTION = (
    "Write trained networks into one file: the weights, the preprocessing and what they are, and\n"
    "no path of this machine. --show prints what such a file holds."
)
TEXTS = {
    "name": "name of the weights; default: that of the file",
    "version": "version of the weights",
    "licence": "licence of the weights",
    "attribution": "whom to name",
    "training_data": "what they were trained on",
    "description": "anything else",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--model", type=Path, action="append", metavar="MODEL",
        help="folder of a run or of a cross-validation, or a model file; several go into one file, "
        "as an ensemble",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="model file to write (.safetensors)"
    )
    for name, text in TEXTS.items():
        parser.add_argument(f"--{name}", metavar="TEXT", help=text)
    parser.add_argument(
        "--threshold", type=of_setting(PredictSettings, "threshold"), metavar="P",
        help="probability above which `predict` marks a voxel; default: the networks' own",
    )  # fmt: skip
    parser.add_argument(
        "--min_lesion_mm3", type=of_setting(PredictSettings, "min_lesion_mm3"), metavar="MM3",
        help="smaller lesions are dropped by `predict`; default: the networks' own",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument(
        "--show", nargs="?", type=Path, const=Path("weights"), metavar="FILE",
        help="print what a model file holds; without FILE, the released weights",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other."""
    if flags.show is None:
        if not flags.model or flags.output is None:
            parser.error("expected --model and --output (to write a file), or --show")
        return
    others = ("model", "output", *TEXTS, "threshold", "min_lesion_mm3", "overwrite")
    if given := [f"--{name}" for name in others if getattr(flags, name)]:
        parser.error(f"--show excludes {', '.join(given)}: give one or the other")
