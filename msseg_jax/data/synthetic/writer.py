"""A data set in the MSSEG-2 layout, made of real scans.

ROOT/<source>_<number>/   one pair, as `data.dataset` describes it, and `synthetic.json`
"""

import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from msseg_jax.data.dataset import SYNTHETIC
from msseg_jax.data.phantom.writer import write_volume
from msseg_jax.data.synthetic.bank import Bank, read_bank
from msseg_jax.data.synthetic.pair import SyntheticPair, make_pair
from msseg_jax.data.synthetic.source import Files, SourceError, find_sources, read_source, stem
from msseg_jax.data.volumes import SUFFIXES
from msseg_jax.errors import InputError
from msseg_jax.prepare.request import check_libraries
from msseg_jax.process import in_processes, processors


@dataclass(frozen=True)
class Request:
    """What a data set is to be made of."""

    scans: tuple[Path, ...]  # folders, as `source` describes them
    masks: tuple[Path, ...]  # folders of lesion masks in MNI space
    output: Path
    shapes: tuple[Path, ...] = ()  # folders of lesion masks in any space
    leave_out: tuple[str, ...] = ()  # names of scans and masks that are not to be used
    pairs: int = 16  # of each scan
    seed: int = 0
    jobs: int | None = None  # processes; None: all processors, no more than scans
    overwrite: bool = False
    find_brains: bool = False  # also where a scan has a brain mask
    brain_size: float = 1.0  # of the brains of `masks`; see `bank.read_bank`


@dataclass(frozen=True)
class Work:
    """The pairs of one source, by the name of their folder, with their numbers."""

    files: Files
    pairs: dict[str, int]


def write_synthetic(request: Request) -> list[dict]:
    """Write a data set; returns the records of its pairs, by name.

    Pair k of a scan depends on the seed, the scan's name and k alone, and on all masks.

    Raises:
      InputError: before any work, for what is missing or in the way; a scan or a mask that cannot
        be used.
    """
    check_libraries()
    sources = _sources(request)
    masks, shapes = (
        [path for folder in folders for path in _masks(folder, flag)]
        for folders, flag in ((request.masks, "--masks"), (request.shapes, "--shapes"))
    )
    there = {files.name for files in sources} | {stem(path) for path in (*masks, *shapes)}
    if unknown := [name for name in request.leave_out if name not in there]:
        raise InputError(
            f"--leave_out={unknown[0]}: no scan and no mask is called so; wanted one of these: "
            f"{', '.join(sorted(there))}"
        )
    sources = [files for files in sources if files.name not in request.leave_out]
    if not sources:
        raise SourceError("--leave_out: no scan is left; wanted at least one of --scans")
    masks, shapes = (
        [path for path in paths if stem(path) not in request.leave_out] for paths in (masks, shapes)
    )
    work = [
        Work(files, {f"{files.name}_{k:03d}": k for k in range(request.pairs)}) for files in sources
    ]
    _check_output(request, [name for one in work for name in one.pairs])
    bank = read_bank(masks, shapes, request.brain_size)
    jobs = min(request.jobs or processors(), len(work))
    write = partial(_write_all, request, bank)
    records = {}
    with tqdm(total=len(work), desc="scans", disable=None, leave=False) as bar:
        for one in in_processes(write, work, jobs):
            records |= one
            bar.update()
    return [records[name] for name in sorted(records)]


def _sources(request: Request) -> list[Files]:
    sources = [files for root in request.scans for files in find_sources(root)]
    names = [files.name for files in sources]
    for files in sources:
        if names.count(files.name) > 1:
            raise SourceError(
                f"{files.scans[0]}: another scan is called {files.name} as well; wanted names that "
                "tell them apart: rename one of them"
            )
    return sources


def _masks(folder: Path, flag: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; wanted one with lesion masks ({flag})")
    masks = [path for path in sorted(folder.iterdir()) if path.name.endswith(SUFFIXES)]
    if not masks:
        raise InputError(f"{folder}: no NIfTI file in it; wanted lesion masks (.nii.gz)")
    return masks


def _check_output(request: Request, names: list[str]) -> None:
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output={request.output}: {error}; wanted a folder to write in"
        ) from error
    folders = [path for path in sorted(request.output.iterdir()) if path.is_dir()]
    if others := [path.name for path in folders if path.name not in names and path.name[0] != "."]:
        raise InputError(
            f"--output={request.output}: also holds {others[0]}, which is none of the pairs asked "
            "for, and training would read it; wanted a folder of its own for each data set"
        )
    taken = [path.name for path in folders if path.name in names]
    if foreign := [name for name in taken if not (request.output / name / SYNTHETIC).is_file()]:
        raise InputError(
            f"--output={request.output}: {foreign[0]} was not made by this program, and a pair "
            "would take its place; name another folder"
        )
    if taken and not request.overwrite:
        raise InputError(
            f"--output={request.output}: already holds {len(taken)} of the {len(names)} pairs "
            f"({taken[0]} first); name another folder, or add --overwrite to replace them"
        )


def _write_all(request: Request, bank: Bank, work: Work) -> dict[str, dict]:
    """All pairs of one source, which is read once; their records by name."""
    source = read_source(work.files, request.find_brains)
    records = {}
    for name, number in work.pairs.items():
        pair = make_pair(source, bank, request.seed, number)
        made = {"seed": request.seed, "number": number, "left_out": list(request.leave_out)}
        pair = replace(pair, record=pair.record | made)
        write_pair(request.output / name, pair)
        records[name] = {"patient": name} | pair.record
    return records


def write_pair(folder: Path, pair: SyntheticPair) -> None:
    """Write one pair, in place of what is there; its folder appears when it is complete."""
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)  # left over from a run that was killed
    partial_folder.mkdir()
    try:
        for name, volume in pair.volumes.items():
            write_volume(partial_folder / name, volume, pair.affine)
        (partial_folder / SYNTHETIC).write_text(json.dumps(pair.record, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        partial_folder.rename(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
