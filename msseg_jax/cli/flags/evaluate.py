"""The flags of `msseg evaluate`."""

import argparse
from pathlib import Path

EXAMPLES = (
    "--reference pairs --prediction masks -o scores", "--answers reports -o scores",
)  # fmt: skip
DESCRIPTION = (
    "Score predicted masks of new lesions by the rules of the MSSEG-2 challenge, and write tables\n"
    "and a report. Or count the answers that readers gave in the reports of `msseg predict`."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    source = parser.add_argument_group("input")
    source.add_argument(
        "--reference", type=Path, metavar="ROOT",
        help="Folder in the MSSEG-2 layout, with one folder per patient. Each holds the consensus "
        "mask, and may hold the masks of single experts. Required without --answers.",
    )  # fmt: skip
    source.add_argument(
        "--prediction", type=Path, metavar="DIR",
        help="Folder with the predicted masks, <patient>.nii.gz, as `msseg predict --dataset` "
        "writes them. Required without --answers.",
    )  # fmt: skip
    source.add_argument(
        "--probability", type=Path, metavar="DIR",
        help="Folder with the probability maps, <patient>.nii.gz, as `msseg predict --dataset "
        "--probability` writes them. With it, found and false lesions are also counted at "
        "different thresholds (curve.csv and a chart in the report). Default: no maps.",
    )  # fmt: skip
    source.add_argument(
        "--model", type=Path, action="append", default=[], metavar="MODEL",
        help="Model that made the predictions: the folder of a run or of a cross-validation, a "
        "model file, or `weights` for the released weights. The report then warns if the "
        "intensities of a scan differ from those of the training. Can be given several times, once "
        "for each model of an ensemble. Default: no such warnings.",
    )  # fmt: skip
    source.add_argument(
        "--answers", type=Path, metavar="DIR",
        help="Folder with the answers of readers, as the reports of `msseg predict` save them "
        "(NAME_answers.csv), or one such file. They say which of the marked lesions are true. "
        "Required without --reference and --prediction, which cannot be given with it.",
    )  # fmt: skip
    source.add_argument(
        "--marked", type=Path, metavar="DIR",
        help="With --answers: the folder of the masks that the readers judged, as `msseg predict` "
        "wrote it. The lesions that are true are then written as reference maps, "
        "OUTPUT/reference/<patient>/ground_truth.nii.gz, which --reference of this command reads. "
        "OUTPUT/reference must be empty or absent. "
        "Default: only count the answers.",
    )  # fmt: skip
    results = parser.add_argument_group("output")
    results.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="Folder to write the tables (CSV and JSON) and report.html into. Required.",
    )  # fmt: skip
    results.add_argument(
        "--no_report", action="store_true",
        help="Write only the tables. Default: write the report, too.",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that are missing or contradict each other."""
    names = ("reference", "prediction", "probability", "model")
    given = [f"--{name}" for name in names if getattr(flags, name)]
    if flags.answers is None:
        if flags.reference is None or flags.prediction is None:
            parser.error("expected --reference and --prediction, or --answers")
        if flags.marked is not None:
            parser.error("--marked needs --answers")
    elif given or flags.no_report:
        others = [*given, *(["--no_report"] if flags.no_report else [])]
        parser.error(f"--answers excludes {', '.join(others)}. Give one or the other")
