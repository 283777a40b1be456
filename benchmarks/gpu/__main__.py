"""Run the parts of the GPU benchmark one after the other. See `benchmarks/gpu.sh`."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.part import BUDGET_S, MARK, PARTS
from benchmarks.gpu.summary import write_summary

MOST_FILES, MOST_BYTES = 8, 16 * 2**20  # in the folder of the results


def main() -> int:
    """Run the command. Return 0 if every part that was started has ended well."""
    parser = argparse.ArgumentParser("benchmarks/gpu.sh", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("build/gpu"),
        help="folder for the results; default: build/gpu",
    )  # fmt: skip
    parser.add_argument("--small", action="store_true", help="tiny sizes, to test the script")
    parser.add_argument(
        "--budget_s",
        type=float,
        default=BUDGET_S,
        help="seconds for all parts; default: %(default).0f",
    )
    parser.add_argument(
        "--only", choices=list(PARTS), nargs="+", default=list(PARTS), help="run only these parts"
    )
    flags = parser.parse_args()
    flags.folder = flags.folder.resolve()
    flags.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic()  # of the share of a part
    scale = flags.budget_s / sum(PARTS[name].share_s for name in flags.only)
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="msseg_gpu_") as scratch:
        for name in flags.only:
            end += scale * PARTS[name].share_s
            limit_s = end - time.monotonic()
            if limit_s < 5:
                results[name] = {"status": "not started, because the time was used up"}
            else:
                print(f"{name}: at most {limit_s:.0f} s", flush=True)
                results[name] = run_part(name, flags, Path(scratch), limit_s)
                print(f"{name}: {results[name]['status']}", flush=True)
            write_summary(flags.folder, results)
    remove_excess(flags.folder)
    print(f"results: {flags.folder / 'summary.md'}")
    return int(any(r["status"].startswith(("failed", "stopped")) for r in results.values()))


def run_part(name: str, flags: argparse.Namespace, scratch: Path, limit_s: float) -> dict:
    """Run a part in a process of its own, and return what it reported, with its status."""
    # Caches are empty at the start, so the first step is a cold one. All parts share them.
    environment = {**os.environ, "XDG_CACHE_HOME": str(scratch / "cache"),
                   "JAX_COMPILATION_CACHE_DIR": str(scratch / "compiled"),
                   "JAX_TRACEBACK_FILTERING": "off"}  # fmt: skip
    command = [
        sys.executable, "-m", "benchmarks.gpu.part", name, str(flags.folder), str(scratch),
        str(limit_s), *["--small"] * flags.small,
    ]  # fmt: skip
    start = time.monotonic()
    output = scratch / f"{name}.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = process.wait(limit_s)
            status = "done" if status == 0 else f"failed with {status}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit_s:.0f} s"
        finally:
            end_group(process)
    text = output.read_text(errors="replace")
    with (flags.folder / "log.txt").open("a") as log:
        log.write(f"\n======== {name}: {status}\n{text[-200_000:]}")
    found: dict = {}
    for line in text.splitlines():
        if line.startswith(MARK):
            with contextlib.suppress(ValueError):  # a part that was stopped may cut its last line
                found |= json.loads(line.removeprefix(MARK))
    if "skipped" in found:
        status = f"skipped: {found.pop('skipped')}"
    elif status != "done":
        lines = [line for line in text.splitlines() if line and not line.startswith(MARK)]
        status += f" ({lines[-1][:200]})" if lines else ""
    return {"status": status, "seconds": round(time.monotonic() - start, 1), **found}


def end_group(process: subprocess.Popen) -> None:
    """End a part and the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove_excess(folder: Path) -> None:
    """Delete the largest files beyond what may be copied from another machine."""
    files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    for number, file in enumerate(files):
        if number >= MOST_FILES or file.stat().st_size > MOST_BYTES:
            print(f"{file.name}: deleted, because it is too large or there are too many files")
            file.unlink()


if __name__ == "__main__":
    sys.exit(main())
