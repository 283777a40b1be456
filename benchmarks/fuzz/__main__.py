"""Fuzz the functions that read files. See `benchmarks.fuzz`.

    python -m benchmarks.fuzz --target nifti json --count 20000 --seed 0
    python -m benchmarks.fuzz --target nifti --only 1234

Prints a table with one line per target. Exits with 1 if there is a finding; its input is kept in
FOLDER/<target>/findings.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from benchmarks.fuzz.runner import Fuzzing, Summary
from msseg_jax.system.text_table import text_table

TARGETS = sorted(p.stem for p in (Path(__file__).parent / "targets").glob("[!_]*.py"))


def main() -> int:
    """Run the command; return 1 if there is a finding, else 0."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS, metavar="NAME",
                        help=f"what to fuzz: {', '.join(TARGETS)}; default: all")  # fmt: skip
    parser.add_argument("--count", type=int, default=20_000, help="cases per target")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="run only this case, and keep its input")
    parser.add_argument("--minutes", type=float, default=float("inf"),
                        help="start no further case after this time, for each target")  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, help="number of processes")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"),
                        help="folder for the seeds and the findings")  # fmt: skip
    flags = parser.parse_args()
    if flags.only is not None:
        return max(_run_one(name, flags) for name in flags.target)
    summaries = []
    for name in flags.target:
        fuzzing = Fuzzing(name, flags.seed, flags.folder.resolve() / name)
        fuzzing.make_seeds()
        shutil.rmtree(fuzzing.folder / "findings", ignore_errors=True)
        numbers = range(flags.first, flags.first + flags.count)
        until = time.monotonic() + 60 * flags.minutes
        summary = fuzzing.run_all(numbers, flags.workers, until)
        summaries.append(summary)
        _print_findings(summary, fuzzing)
        if summary.cases < flags.count:
            print(f"{name}: stopped; continue with --first={flags.first + summary.cases}")
    print(_table(summaries))
    return 1 if any(summary.findings for summary in summaries) else 0


def _run_one(name: str, flags: argparse.Namespace) -> int:
    """Run one case in this process, so that a debugger can be used. Return 1 for a finding."""
    fuzzing = Fuzzing(name, flags.seed, flags.folder.resolve() / name)
    if not fuzzing.seeds.is_dir():
        fuzzing.make_seeds()
    case = fuzzing.folder / "only"
    outcome = fuzzing.run(flags.only, case)
    print(outcome.text)
    print(f"{name} {flags.only}: {outcome.kind}, {outcome.seconds:.2f} s, {outcome.peak_mb:.0f} MB")
    print(f"input: {case}")
    return 0 if outcome.kind in ("read", "refused") else 1


def _print_findings(summary: Summary, fuzzing: Fuzzing) -> None:
    for kind, count in summary.findings.most_common():
        print(
            f"{summary.target}: {count} x {kind}: seed {fuzzing.seed}, first case "
            f"{summary.first[kind]}, inputs in {fuzzing.folder / 'findings'}"
        )


def _table(summaries: list[Summary]) -> str:
    rows = [("target", "cases", "read", "refused", "findings", "slowest, s", "largest, MB")]
    rows += [
        (
            one.target, str(one.cases), str(one.read), str(one.refused),
            str(sum(one.findings.values())), f"{one.slowest.seconds:.2f}",
            f"{one.largest.peak_mb:.0f}",
        )
        for one in summaries
    ]  # fmt: skip
    return text_table(rows, "<>>>>>>")


if __name__ == "__main__":
    sys.exit(main())
