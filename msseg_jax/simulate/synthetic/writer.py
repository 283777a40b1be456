"""Write a data set in the MSSEG-2 layout, made from real scans.

ROOT/<source>_<number>/   one pair in the layout of `volumes.layout`, and `synthetic.json`
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
from msseg_jax.simulate.synthetic.source import Files, find_sources, read_source
from msseg_jax.system.atomic import whole_folder
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.machine import processors
from msseg_jax.system.paths import check_outside, has_suffix
from msseg_jax.system.processes import do_each
from msseg_jax.volumes.layout import SYNTHETIC, check_not_in_patient
from msseg_jax.volumes.names import READABLE, stem
from msseg_jax.volumes.nifti import write_array

logger = logging.getLogger(__name__)

FORMAT = 5  # version of the simulation; increase it when the same inputs give a different pair


@dataclass(frozen=True)
class SyntheticRequest:
    """Inputs and settings of a data set."""

    scans: tuple[Path, ...]  # folders in the layout that `source` describes
    masks: tuple[Path, ...]  # folders of lesion masks in MNI space
    output: Path
    shapes: tuple[Path, ...] = ()  # folders of lesion masks in any space
    leave_out: tuple[str, ...] = ()  # names of scans and masks that are not used
    pairs: int = 16  # number of pairs per scan
    seed: int = 0
    jobs: int | None = None  # processes; None: one per processor, at most one per scan
    overwrite: bool = False  # make all pairs again, even those that exist
    find_brains: bool = False  # find the brain even if a scan has a brain mask
    brain_size: float = 1.0  # size of the brains in `masks`; see `bank.read_bank`
    least_contrast: float = FAINTEST  # minimum rise of a lesion that is labelled


@dataclass(frozen=True)
class Work:
    """The pairs to make from one source."""

    files: Files
    pairs: dict[str, dict]  # folder name of a pair: all inputs on which it depends

    @staticmethod
    def of(
        files: Files, masks: list[Path], shapes: list[Path], request: SyntheticRequest
    ) -> "Work":
        """Return the pairs that a request makes from one source."""
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

    Pair k of a scan depends only on the scan with its masks, its name, the seed, k, all lesion
    masks, `brain_size`, `find_brains` and `least_contrast`. Existing pairs with the same inputs are
    kept, so the same command resumes an interrupted run.

    Returns:
      The records of all pairs, including the existing ones, sorted by source and number; and the
      reason for each scan that failed, {scan: reason}.

    Raises:
      InputError: an input is missing, a lesion mask cannot be used, or the output folder contains
        other files. This is checked before any pair is made.
    """
    sources = _sources(request)
    masks, shapes = (
        [path for folder in folders for path in _masks(folder, flag)]
        for folders, flag in ((request.masks, "--masks"), (request.shapes, "--shapes"))
    )
    _check_left_out(request.leave_out, sources, [*masks, *shapes])
    sources = [files for files in sources if files.name not in request.leave_out]
    if not sources:
        raise InputError(
            "--leave_out: all scans of --scans are left out. Keep at least one of them."
        )
    masks, shapes = (  # sorted by name, because lesions are drawn by their index
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
    """Return all scans. If two folders have a scan of one name, folder names are put in front."""
    found = {root: find_sources(root) for root in request.scans}
    sources = [files for group in found.values() for files in group]
    if len({files.name for files in sources}) < len(sources):
        sources = [
            replace(files, name=f"{root.resolve().name}_{files.name}")
            for root, group in found.items()
            for files in group
        ]
    names = [files.name for files in sources]
    for files in sources:
        if names.count(files.name) > 1:
            raise InputError(
                f"{files.scans[0]}: another scan has the same name, {files.name}. Expected a "
                "different name for each scan. Rename one of them."
            )
    return sources


def _masks(folder: Path, flag: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Expected a folder with lesion masks ({flag}).")
    masks = [path for path in sorted(folder.iterdir()) if has_suffix(path, READABLE)]
    if not masks:
        raise InputError(
            f"{folder}: the folder contains no NIfTI file. Expected lesion masks (.nii.gz, {flag})."
        )
    return masks


def _check_left_out(names: tuple[str, ...], sources: list[Files], masks: list[Path]) -> None:
    scans, masked = {files.name for files in sources}, {stem(path) for path in masks}
    for name in names:
        if name not in scans | masked:
            raise InputError(
                f"--leave_out={name}: no scan or mask has this name. Expected one of these names: "
                f"{', '.join(sorted(scans | masked))}"
            )
        for known, kind in ((scans, "scan"), (masked, "mask")):
            if name not in known:
                logger.warning(
                    "--leave_out=%s: no %s has this name. If a %s of this patient has another "
                    "name, leave it out too.", name, kind, kind,
                )  # fmt: skip


def _digest(*groups: Sequence[Path]) -> str:
    """Return a digest of the contents of all files, and of how they are grouped."""
    digests = [[sha256(path.read_bytes()).hexdigest() for path in group] for group in groups]
    return sha256(json.dumps(digests).encode()).hexdigest()[:16]


def _check_output(request: SyntheticRequest, pairs: dict[str, dict]) -> None:
    for scans in request.scans:
        problem = f"lies in --scans={scans}, so the next run would read the pairs as scans"
        check_outside(request.output, scans, problem)
    check_not_in_patient("--output", request.output)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output={request.output}: cannot create this folder ({error}). Name a folder that "
            "you may write to."
        ) from error
    folders = [path for path in sorted(request.output.iterdir()) if path.is_dir()]
    if others := [path.name for path in folders if path.name not in pairs and path.name[0] != "."]:
        raise InputError(
            f"--output={request.output}: the folder also contains {others[0]}, which is not one of "
            "the requested pairs, but training would read it. Use a separate folder for each data "
            "set."
        )
    existing = [path for path in folders if path.name in pairs]
    if foreign := [path.name for path in existing if not (path / SYNTHETIC).is_file()]:
        raise InputError(
            f"--output={request.output}: the folder {foreign[0]} was not made by this program, but "
            "a pair would replace it. Name another output folder."
        )
    if request.overwrite:
        return
    for path in existing:
        if difference := _difference(path, pairs[path.name]):
            raise InputError(
                f"--output={request.output}: the existing pair {path.name} does not match this "
                f"request ({difference}). Name another folder, or add --overwrite to make all "
                "pairs again."
            )


def _difference(folder: Path, made: dict) -> str:
    """Return how an existing pair differs from the requested one; "" if it does not differ."""
    record = read_json(folder / SYNTHETIC)
    if not isinstance(record, dict):
        return f"{SYNTHETIC} is damaged"
    for field, value in made.items():
        if record.get(field) != value:
            if field == "files":  # the value is a digest, which would not help the reader
                return "the input files have changed"
            return f"{field} was {record.get(field)}, now it is {value}"
    return ""


def _write_all(request: SyntheticRequest, bank: Bank, threads: int, work: Work) -> list[dict]:
    """Write all pairs of one source with this number of threads. Read the source only once."""
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
    """Write one pair, and replace an existing one. The folder appears only when it is complete."""
    with whole_folder(folder, replace=True) as new:
        for name, volume in pair.volumes.items():
            write_array(new / name, volume, pair.affine, time_unit="sec")
        (new / SYNTHETIC).write_text(json.dumps(pair.record, indent=1) + "\n", encoding="utf-8")
