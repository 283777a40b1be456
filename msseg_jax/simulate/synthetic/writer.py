"""A data set in the MSSEG-2 layout, made of real scans.

ROOT/<source>_<number>/   one pair, as `volumes.layout` describes it, and `synthetic.json`
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from tqdm import tqdm

from msseg_jax.prepare.threads import use_threads
from msseg_jax.simulate.synthetic.bank import Bank, read_bank
from msseg_jax.simulate.synthetic.pair import FAINTEST, SyntheticPair, make_pair
from msseg_jax.simulate.synthetic.source import Files, find_sources, read_source, stem
from msseg_jax.system.atomic import whole_folder
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.machine import processors
from msseg_jax.system.paths import check_outside
from msseg_jax.system.processes import do_each
from msseg_jax.volumes.layout import SYNTHETIC
from msseg_jax.volumes.nifti import SUFFIXES, write_array

logger = logging.getLogger(__name__)

FORMAT = 3  # of what is made of a scan; counted up when a pair would come out otherwise


@dataclass(frozen=True)
class SyntheticRequest:
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
    least_contrast: float = FAINTEST  # of a new lesion that is labelled


@dataclass(frozen=True)
class Work:
    """What is to be made of one source."""

    files: Files
    pairs: dict[str, dict]  # by the name of their folder: all that a pair depends on

    @staticmethod
    def of(
        files: Files, masks: list[Path], shapes: list[Path], request: SyntheticRequest
    ) -> "Work":
        made = {
            "format": FORMAT,
            "seed": request.seed,
            "brain_size": request.brain_size,
            "found_brain": request.find_brains,
            "least_contrast": request.least_contrast,
            "files": _digest(files.all, masks, shapes),
        }
        names = {f"{files.name}_{k:03d}": k for k in range(request.pairs)}
        return Work(files, {name: made | {"number": k} for name, k in names.items()})


def write_synthetic(request: SyntheticRequest) -> tuple[list[dict], dict[str, str]]:
    """Write a data set, and continue after a scan that cannot be used.

    Returns:
      The records of all pairs by name, also of those that were there already, and {scan: what went
      wrong}.

    Pair k of a scan depends on the scan with its masks, its name, the seed, k, all lesion masks,
    `brain_size`, `find_brains` and `least_contrast`, and on nothing else. Pairs that are there,
    made of the same, are kept: the same command continues what was interrupted.

    Raises:
      InputError: before any work, for what is missing or in the way; a mask that cannot be used.
    """
    sources = _sources(request)
    masks, shapes = (
        [path for folder in folders for path in _masks(folder, flag)]
        for folders, flag in ((request.masks, "--masks"), (request.shapes, "--shapes"))
    )
    _check_left_out(request.leave_out, sources, [*masks, *shapes])
    sources = [files for files in sources if files.name not in request.leave_out]
    if not sources:
        raise InputError("--leave_out: no scan is left; expected at least one of --scans")
    masks, shapes = (  # in an order of their own, as lesions are drawn by their numbers
        sorted((path for path in paths if stem(path) not in request.leave_out), key=stem)
        for paths in (masks, shapes)
    )
    work = {files.name: Work.of(files, masks, shapes, request) for files in sources}
    _check_output(
        request, {name: made for one in work.values() for name, made in one.pairs.items()}
    )
    bank = read_bank(masks, shapes, request.brain_size)
    jobs = min(request.jobs or processors(), len(work))
    write = partial(_write_all, request, bank, max(1, processors() // jobs))
    records: list[dict] = []
    failures: dict[str, str] = {}
    with tqdm(total=len(work), desc="scans", disable=None, leave=False) as bar:
        for _, made in do_each(write, work, jobs, failures):
            records += made
            bar.update()
    return sorted(records, key=lambda record: (record["source"], record["number"])), failures


def _sources(request: SyntheticRequest) -> list[Files]:
    sources = [files for root in request.scans for files in find_sources(root)]
    names = [files.name for files in sources]
    for files in sources:
        if names.count(files.name) > 1:
            raise InputError(
                f"{files.scans[0]}: another scan is called {files.name} as well; expected names "
                "that tell them apart: rename one of them"
            )
    return sources


def _masks(folder: Path, flag: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with lesion masks ({flag})")
    masks = [path for path in sorted(folder.iterdir()) if path.name.endswith(SUFFIXES)]
    if not masks:
        raise InputError(f"{folder}: no NIfTI file in it; expected lesion masks (.nii.gz)")
    return masks


def _check_left_out(names: tuple[str, ...], sources: list[Files], masks: list[Path]) -> None:
    scans, masked = {files.name for files in sources}, {stem(path) for path in masks}
    for name in names:
        if name not in scans | masked:
            raise InputError(
                f"--leave_out={name}: no scan and no mask is called so; expected one of these: "
                f"{', '.join(sorted(scans | masked))}"
            )
        for there, kind in ((scans, "scan"), (masked, "mask")):
            if name not in there:
                logger.warning(
                    "--leave_out=%s: no %s is called so; if there is one of this patient under "
                    "another name, leave that out as well", name, kind,
                )  # fmt: skip


def _digest(*groups: Sequence[Path]) -> str:
    """Of what files hold, and which of them are together."""
    digests = [[sha256(path.read_bytes()).hexdigest() for path in group] for group in groups]
    return sha256(json.dumps(digests).encode()).hexdigest()[:16]


def _check_output(request: SyntheticRequest, wanted: dict[str, dict]) -> None:
    for scans in request.scans:
        problem = f"lies in --scans={scans}, and the pairs would be taken for scans the next time"
        check_outside(request.output, scans, problem)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output={request.output}: {error}; expected a folder to write in"
        ) from error
    folders = [path for path in sorted(request.output.iterdir()) if path.is_dir()]
    if others := [path.name for path in folders if path.name not in wanted and path.name[0] != "."]:
        raise InputError(
            f"--output={request.output}: also holds {others[0]}, which is none of the pairs asked "
            "for, and training would read it; expected a folder of its own for each data set"
        )
    taken = [path for path in folders if path.name in wanted]
    if foreign := [path.name for path in taken if not (path / SYNTHETIC).is_file()]:
        raise InputError(
            f"--output={request.output}: {foreign[0]} was not made by this program, and a pair "
            "would take its place; name another folder"
        )
    if request.overwrite:
        return
    for path in taken:
        if difference := _difference(path, wanted[path.name]):
            raise InputError(
                f"--output={request.output}: holds {path.name}, made otherwise ({difference}); "
                "name another folder, or add --overwrite to make all pairs anew"
            )


def _difference(folder: Path, made: dict) -> str:
    """In what a pair that is there was made otherwise; empty if in nothing."""
    record = read_json(folder / SYNTHETIC)
    if not isinstance(record, dict):
        return f"{SYNTHETIC} is damaged"
    for field, value in made.items():
        if record.get(field) != value:
            if field == "files":  # a digest, that says nothing to people
                return "of other files"
            return f"{field} {record.get(field)}, now {value}"
    return ""


def _write_all(request: SyntheticRequest, bank: Bank, threads: int, work: Work) -> list[dict]:
    """Write all pairs of one source, which is read once. Use so many processors."""
    use_threads(threads)
    records, source = [], None
    for name, made in work.pairs.items():
        folder = request.output / name
        if folder.exists() and not request.overwrite:
            record = read_json(folder / SYNTHETIC)
        else:
            source = source or read_source(work.files, request.find_brains)
            pair = make_pair(source, bank, request.seed, made["number"], request.least_contrast)
            record = pair.record | made | {"left_out": list(request.leave_out)}
            write_pair(folder, replace(pair, record=record))
        records.append({"patient": name} | record)
    return records


def write_pair(folder: Path, pair: SyntheticPair) -> None:
    """Write one pair in place of what is there. Its folder appears when it is complete."""
    with whole_folder(folder, replace=True) as new:
        for name, volume in pair.volumes.items():
            write_array(new / name, volume, pair.affine, time_unit="sec")
        (new / SYNTHETIC).write_text(json.dumps(pair.record, indent=1) + "\n")
