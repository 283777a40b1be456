"""The flags of `msseg export`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags.values import of_setting
from msseg_jax.configuration.sections import PredictSettings

EXAMPLES = ("--model runs/mine -o mine.safetensors --name mine", "--show mine.safetensors")
DESCRIPTION = (
    "Write trained networks into one model file, or print what such a file holds. The file holds\n"
    "the weights, the preprocessing and a description, but no paths of this computer."
)
KEPT = "Default: the text of the model file, if --model is a single model file; else empty."
TERMS = "Default: the text of the model files that the networks come from; empty if there is none."
TEXTS = {
    "name": "Name of the weights. Default: the name of the model file, if --model is a single "
    "model file; else the name of the output file, without its suffix.",
    "version": f"Version of the weights. {KEPT}",
    "licence": f"Licence of the weights. {TERMS}",
    "attribution": f"People or institutions to credit for the weights. {TERMS}",
    "training_data": f"Description of the data that the networks were trained on. {KEPT}",
    "description": f"Any other information about the weights. {KEPT}",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    source = parser.add_argument_group("input")
    source.add_argument(
        "--model", type=Path, action="append", metavar="MODEL",
        help="Networks to export: the folder of a run or of a cross-validation, a model file, or "
        "`weights` for the released weights. Can be given several times: the file then holds all "
        "networks, as an ensemble. Required unless --show is given.",
    )  # fmt: skip
    results = parser.add_argument_group("output")
    results.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="Model file to write (.safetensors). Required unless --show is given.",
    )  # fmt: skip
    results.add_argument(
        "--overwrite", action="store_true",
        help="Replace --output if it exists. Default: refuse to replace a file.",
    )  # fmt: skip
    texts = parser.add_argument_group("description of the weights")
    for name, text in TEXTS.items():
        texts.add_argument(f"--{name}", metavar="TEXT", help=text)
    options = parser.add_argument_group("options that `msseg predict` uses by default")
    own = "Default: the value of the networks. If their values differ, this flag is required."
    options.add_argument(
        "--threshold", type=of_setting(PredictSettings, "threshold"), metavar="P",
        help="Probability above which a voxel is part of a new lesion: 0 or more and less than 1. "
        f"{own}",
    )  # fmt: skip
    options.add_argument(
        "--min_lesion_mm3", type=of_setting(PredictSettings, "min_lesion_mm3"), metavar="MM3",
        help="Volume in mm3 below which a predicted lesion is removed from the mask. 0 keeps all "
        f"lesions. {own}",
    )  # fmt: skip
    options.add_argument(
        "--min_peak", type=of_setting(PredictSettings, "min_peak"), metavar="P",
        help="Probability that a predicted lesion must have in at least one voxel, or it is "
        f"removed from the mask. 0 keeps all lesions. {own}",
    )  # fmt: skip
    options.add_argument(
        "--flips", type=int, choices=(1, 2, 4, 8), metavar="N",
        help="Number of mirror images over which the probabilities are averaged: 1, 2, 4 or 8. "
        "Default: the values of the networks. If they differ, `msseg predict` uses the first one.",
    )  # fmt: skip
    evidence = parser.add_argument_group("evidence")
    evidence.add_argument(
        "--reliability", type=Path, metavar="FILE",
        help="Reliability table of these networks together (.json), as `python -m "
        "benchmarks.reliability` writes it. The report then states for each new lesion how many "
        "like it were right. Default: the table of the model file, if --model is a single model "
        "file; else none.",
    )  # fmt: skip
    shown = parser.add_argument_group("print instead of write")
    shown.add_argument(
        "--show", nargs="?", type=Path, const=Path("weights"), metavar="FILE",
        help="Print what a model file holds, and write nothing. Without FILE, describe the "
        "released weights. No other flag can be given with it.",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other."""
    if flags.show is None:
        if not flags.model or flags.output is None:
            parser.error("expected --model and --output to write a file, or --show to print one")
        return
    options = ("threshold", "min_lesion_mm3", "min_peak", "flips", "reliability", "overwrite")
    others = ("model", "output", *TEXTS, *options)
    if given := [
        f"--{name}" for name in others if getattr(flags, name) != parser.get_default(name)
    ]:
        parser.error(f"--show excludes {', '.join(given)}. Give one or the other")
