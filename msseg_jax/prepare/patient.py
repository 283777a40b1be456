"""One patient: two scans in, a folder in the MSSEG-2 layout out, whole or not at all.

FOLDER/flair_time01_on_middle_space.nii.gz   first visit, bias-corrected
       flair_time02_on_middle_space.nii.gz   second visit
       brain_mask.nii.gz                     the union of both visits', where both have data
       transforms/middle_to_time01.txt       ITK; from points of the middle space to the scan's, as
                  middle_to_time02.txt       sitk.Resample(scan, middle, transform) takes them
                  time01_to_time02.txt
       prepare.json                          what was done with what, and how well it went
       prepare.png                           to look at
"""

import json
import os
import shlex
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax import __version__
from msseg_jax.data.quality import MOST_DISPLACEMENT_MM
from msseg_jax.prepare import bias
from msseg_jax.prepare.atlas import load_atlas
from msseg_jax.prepare.bias import correct_bias, field_range
from msseg_jax.prepare.given_mask import check_command, read_mask, run_command
from msseg_jax.prepare.images import volume_ml, write_image
from msseg_jax.prepare.middle import Middle, bring_to_middle, check_match
from msseg_jax.prepare.picture import draw_pair
from msseg_jax.prepare.registration import centre_of, motion_of
from msseg_jax.prepare.request import Request
from msseg_jax.prepare.scan import Scan, check_two_visits, read_scan
from msseg_jax.prepare.threads import at_once
from msseg_jax.prepare.visits import Registered, check_volume, register_visits
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.system.paths import check_there
from msseg_jax.volumes.alignment import Alignment
from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02

RECORD = "prepare.json"
PICTURE = "prepare.png"
TRANSFORMS = "transforms"
FILES = {TIME01, TIME02, BRAIN_MASK, TRANSFORMS, RECORD, PICTURE}
FORMAT = 2  # of the record; raise it when the same input would give another output
MOST_UNSEEN_SHARE = 0.03  # of the brain, outside one visit's field of view, before it is warned of
MOST_COARSER = 1.5  # of one visit's voxels than the other's, before it is warned of


class PrepareError(InputError):
    """A pair that cannot be prepared; the message names what to change."""


@dataclass(frozen=True)
class Prepared:
    """A patient's folder, and what its record says."""

    folder: Path
    record: dict
    was_there: bool  # from an earlier run


@dataclass
class Clock:
    """Seconds by step; `say` is told of each step when it begins."""

    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str):
        self.say(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def prepare_patient(
    request: Request,
    folder: Path,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda step: None,
) -> Prepared:
    """Prepare a pair, unless its folder says that this was done before.

    Args:
      folder: to be made; its name is the patient's.
      overwrite: make it again, whatever is there.
      say: is told of each step.

    Raises:
      InputError: for what is wrong with the input; nothing is written then.
    """
    check_there(request.time01, request.time02, *request.brain_masks)
    folder = folder.resolve()
    clock = Clock(say)
    with clock.step("reading"):
        words = check_command(request.brain_mask_command) if request.brain_mask_command else None
        scans = tuple(
            read_scan(path, series)
            for path, series in zip((request.time01, request.time02), request.series, strict=True)
        )
        check_two_visits(*scans)
        asked_for = _fingerprint(request, scans)
        record = _record_of(folder)
    _check_place(folder, record, overwrite)
    if record is not None and not overwrite:
        if record.get("asked_for") == asked_for:
            return Prepared(folder, record, was_there=True)
        raise PrepareError(
            f"{folder}: holds a pair that was prepared from other scans or in another way; wanted "
            "a folder of its own for each pair: choose another, or --overwrite"
        )
    load_atlas()  # what it imports may swallow Ctrl-C: before there is anything to clear away
    beside = _partial(folder)
    beside.mkdir()
    try:
        record = _prepare_in(beside, folder.name, request, words, scans, asked_for, clock)
        _put_in_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Prepared(folder, record, was_there=False)


def _prepare_in(
    folder: Path,
    name: str,
    request: Request,
    words: list[str] | None,
    scans: tuple[Scan, Scan],
    asked_for: dict,
    clock: Clock,
) -> dict:
    """All of it, into an empty folder; the record that is written last."""
    with clock.step("brain masks"):
        masks = _given_masks(request, words, scans)
    with clock.step("registering"):
        registered = register_visits(scans, masks)
        middle = bring_to_middle(registered)
        check_volume(middle.brain, f"{request.time01} and {request.time02}, where both have data")
        brain_ml = volume_ml(middle.brain)
        alignment = check_match(middle, f"{request.time01} and {request.time02}")
    with clock.step("correcting bias"):
        corrected = tuple(
            at_once(*(partial(correct_bias, image, middle.brain) for image in middle.images))
        )
    with clock.step("writing"):
        for file, image in zip((TIME01, TIME02), corrected, strict=True):
            write_image(folder / file, image, np.int16)
        write_image(folder / BRAIN_MASK, middle.brain, np.uint8)
        _write_transforms(folder / TRANSFORMS, registered, middle)
        draw_pair(folder / PICTURE, _title(name, registered, brain_ml), corrected, middle.brain)
    turned_degrees, moved_mm = motion_of(
        registered.transform, centre_of(registered.visits[0].brain)
    )
    record = {
        "asked_for": asked_for,
        "made_by": {
            "msseg_jax": __version__,
            **{library: version(library) for library in ("SimpleITK", "nilearn", "numpy")},
        },
        **{
            f"time0{number}": _about_visit(visit)
            for number, visit in enumerate(registered.visits, start=1)
        },
        "registration": {
            "turned_degrees": round(turned_degrees, 2),
            "moved_mm": round(moved_mm, 2),
            "correlation": round(registered.correlation, 4),
            "gain_by_mirroring": round(registered.mirror_gain, 4),
            "edges_correlation": round(alignment.correlation, 4),
            "apart_mm": round(alignment.displacement_mm, 2),
        },
        "brain": {
            "source": _source(request),
            "ml": round(brain_ml, 1),
            "in_one_visit_only_ml": round(middle.unseen_ml, 1),
        },
        "bias_field": {
            "full_width_at_half_maximum": bias.FWHM,
            "iterations": bias.ITERATIONS,
            "shrink_factor": bias.SHRINK,
            "control_points": bias.CONTROL_POINTS,
            "largest_over_smallest": [
                round(field_range(before, after, middle.brain), 2)
                for before, after in zip(middle.images, corrected, strict=True)
            ],
        },
        "warnings": _warnings(registered, middle, brain_ml, alignment),
        "seconds": clock.seconds,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return record


def _given_masks(
    request: Request, words: list[str] | None, scans: tuple[Scan, Scan]
) -> tuple[sitk.Image | None, sitk.Image | None]:
    """Masks that somebody else made. Those of no plausible volume are refused before any work."""
    masks = [None, None]
    for number, (scan, path) in enumerate(zip(scans, request.brain_masks, strict=True)):
        if words is not None:
            masks[number] = run_command(words, scan)
        elif path is not None:
            masks[number] = read_mask(path, scan)
        if masks[number] is not None:
            check_volume(masks[number], (words and shlex.join(words)) or str(path))
    return tuple(masks)


def _source(request: Request) -> str:
    if request.brain_mask_command:
        return request.brain_mask_command
    given = [str(path) for path in request.brain_masks if path is not None]
    return " and ".join(given) or "atlas (ICBM 152) and the image's edge"


def _warnings(
    registered: Registered, middle: Middle, brain_ml: float, alignment: Alignment
) -> list[str]:
    """What a reader of the result should know, in words."""
    found = [
        f"{visit.scan.path} does not say how the patient lies (neither qform nor sform is set): "
        "left and right are a guess."
        for visit in registered.visits
        if not visit.scan.is_oriented
    ]
    if middle.unseen_ml > MOST_UNSEEN_SHARE * brain_ml:
        found.append(
            f"{middle.unseen_ml:.0f} ml of the brain lie outside one visit's field of view, and "
            "nothing is said about new lesions there."
        )
    if alignment.displacement_mm > MOST_DISPLACEMENT_MM:
        found.append(
            f"The visits lie {alignment.displacement_mm:.1f} mm apart inside the brain after "
            f"registration (at most {MOST_DISPLACEMENT_MM:g} mm expected): look at {PICTURE}."
        )
    voxels = [np.prod(visit.scan.image.GetSpacing()) for visit in registered.visits]
    if max(voxels) > MOST_COARSER * min(voxels):
        found.append(
            f"The visits differ in resolution: voxels of {voxels[0]:.1f} and {voxels[1]:.1f} mm3. "
            "Small lesions may show in the finer one alone."
        )
    return found


def _about_visit(visit) -> dict:
    image = visit.scan.image
    return {
        "path": str(visit.scan.path),
        "series": visit.scan.series,
        "voxels": image.GetSize(),
        "spacing_mm": [round(mm, 4) for mm in image.GetSpacing()],
        "brain_ml": round(volume_ml(visit.brain), 1),
        "correlation_with_atlas": _rounded(visit.atlas_correlation, 4),
        "grey_to_white": _rounded(visit.grey_to_white, 3),
    }


def _title(name: str, registered: Registered, brain_ml: float) -> str:
    return f"{name}: correlation {registered.correlation:.3f}, brain {brain_ml:.0f} ml"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _write_transforms(folder: Path, registered: Registered, middle: Middle) -> None:
    folder.mkdir()
    for name, transform in (
        ("middle_to_time01", middle.to_visits[0]),
        ("middle_to_time02", middle.to_visits[1]),
        ("time01_to_time02", registered.transform),
    ):
        sitk.WriteTransform(transform, str(folder / f"{name}.txt"))


# --------------------------------------------------------------------------------------- folders


def _fingerprint(request: Request, scans: tuple[Scan, Scan]) -> dict:
    """What the output follows from, as JSON gives it back."""
    return {
        "format": FORMAT,
        "scans": [
            {
                "voxels_sha256": scan.digest,
                "grid": repr((scan.image.GetOrigin(), scan.image.GetSpacing(),
                              scan.image.GetDirection())),
            }
            for scan in scans
        ],
        "brain_masks": [path and _file_state(path) for path in request.brain_masks],
        "brain_mask_command": request.brain_mask_command,
    }  # fmt: skip


def _file_state(path: Path) -> list:
    try:
        state = path.stat()
    except OSError as error:
        raise PrepareError(f"{path}: cannot be read ({error}); wanted a brain mask") from error
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def _record_of(folder: Path) -> dict | None:
    path = folder / RECORD
    return read_json(path) if path.is_file() else None


def _check_place(folder: Path, record: dict | None, overwrite: bool) -> None:
    """Make the folder's parent, and clear away what killed runs have left there.

    Raises:
      PrepareError: files in the folder that are not of our making, which would be lost.
    """
    if record is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PrepareError(
            f"{folder}: is there, and was not made by this program (no {RECORD}); wanted a name "
            "that is free: choose another"
        )
    if record is not None and overwrite:
        others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
        if others:
            raise PrepareError(
                f"{folder}: also holds {', '.join(others)}, not made by this program, which "
                "--overwrite would delete; wanted them elsewhere: move them away first"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in folder.parent.glob(f".partial-{socket.gethostname()}-*"):
        process, _, name = path.name.removeprefix(f".partial-{socket.gethostname()}-").partition(
            "-"
        )
        if name == folder.name and process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _partial(folder: Path) -> Path:
    """Where this process makes a folder: hidden, and named so that it is known whose it is."""
    return folder.with_name(f".partial-{socket.gethostname()}-{os.getpid()}-{folder.name}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _put_in_place(beside: Path, folder: Path) -> None:
    """Rename; what was there before goes when the new is in its place."""
    if not folder.exists():
        beside.rename(folder)
        return
    old = beside.with_name(f"{beside.name}-old")
    folder.rename(old)
    try:
        beside.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
