"""Prepare one patient: read two scans, and write a folder in the MSSEG-2 layout.

The folder is written completely or not at all. `folder` describes its files, and `record` the
content of its record.
"""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.bias import correct_bias, field_range
from msseg_jax.prepare.folder import (
    PICTURE,
    RECORD,
    TO_ATLAS,
    TRANSFORMS,
    check_place,
    what_was_asked_for,
)
from msseg_jax.prepare.given_mask import check_command, check_fit, read_mask, run_command
from msseg_jax.prepare.images import volume_ml, write_image
from msseg_jax.prepare.middle import Middle, bring_to_middle, check_match
from msseg_jax.prepare.picture import draw_pair, view_of
from msseg_jax.prepare.record import (
    PairRecord,
    describe_bias,
    describe_registration,
    flat_warnings,
    read_record,
    with_facts,
)
from msseg_jax.prepare.registration import compose
from msseg_jax.prepare.request import Request
from msseg_jax.prepare.scan import Scan, check_two_visits, read_scan
from msseg_jax.prepare.threads import at_once
from msseg_jax.prepare.visit_facts import compare_visits
from msseg_jax.prepare.visits import (
    Registered,
    check_volume,
    register_visits,
    without_coarse_images,
)
from msseg_jax.system.atomic import whole_folder
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_outside, check_there
from msseg_jax.volumes.layout import BRAIN_MASK, NO_DATA, TIME01, TIME02


@dataclass(frozen=True)
class Prepared:
    """The folder of a prepared patient, and its record."""

    folder: Path
    record: PairRecord
    was_there: bool  # if True, an earlier run prepared it


@dataclass
class Stopwatch:
    """Measures the seconds of each step. Calls `say` with the name of a step when it begins."""

    say: Callable[[str], object]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the seconds that the body of a `with` statement takes."""
        self.say(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def prepare_patient(
    request: Request,
    folder: Path,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda step: None,
) -> Prepared:
    """Prepare a pair, unless its folder shows that an earlier run prepared it.

    Args:
      folder: the folder to write. Its name is the name of the patient.
      overwrite: Prepare the pair again, even if an earlier run prepared it.
      say: function that is called with the name of each step.

    Raises:
      InputError: The input cannot be used, or the folder holds something else. Nothing is written.
    """
    check_there(request.time01, request.time02, *request.brain_masks)
    folder = folder.resolve()
    for path in (request.time01, request.time02, *request.brain_masks):
        if path is not None:
            check_outside(path, folder, f"is an input, but lies in {folder}, which is replaced")
    clock = Stopwatch(say)
    with clock.step("reading"):
        words = check_command(request.brain_mask_command) if request.brain_mask_command else None
        scans = _read_scans(request)
        facts = (scans[0].facts, scans[1].facts)
        contradictions = compare_visits(
            (request.time01, request.time02), facts, request.allow_reversed
        )
        check_two_visits(*scans)
        asked_for = what_was_asked_for(request, scans)
    is_made = (folder / RECORD).is_file()
    check_place(folder, is_made, overwrite)
    if is_made and not overwrite:
        record = read_record(folder / RECORD)
        if record.asked_for == asked_for:
            return Prepared(folder, with_facts(record, facts, contradictions), was_there=True)
        raise InputError(
            f"{folder}: holds a pair that was prepared from other scans or with other options; "
            "expected a separate folder for each pair. Choose another folder, or replace the pair "
            "(--overwrite, in Python overwrite=True)."
        )
    with whole_folder(folder, replace=True) as new:
        middle, title, fields = _register_in(new, folder.name, request, words, scans, clock)
        del scans  # they are large, and correcting the bias needs memory
        ranges = _correct_in(new, title, middle, clock)
        fields["warnings"] = (*contradictions, *fields["warnings"], *flat_warnings(ranges))
        record = PairRecord(
            asked_for=asked_for, seconds=clock.seconds, bias_field=describe_bias(ranges), **fields
        )
        (new / RECORD).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Prepared(folder, record, was_there=False)


def _read_scans(request: Request) -> tuple[Scan, Scan]:
    """Read and check each scan.

    Raises:
      InputError: A scan cannot be used. The message names both if neither can be used.
    """
    scans: list[Scan] = []
    problems: dict[str, None] = {}  # as a set that keeps its order
    paths = (request.time01, request.time02)
    for visit, path in enumerate(paths):
        try:
            scans.append(read_scan(path, request.choice(visit)))
        except InputError as error:
            problems[str(error)] = None
    if problems:
        raise InputError("\n".join(problems))
    first, second = scans
    return first, second


def _register_in(
    folder: Path,
    name: str,
    request: Request,
    words: list[str] | None,
    scans: tuple[Scan, Scan],
    clock: Stopwatch,
) -> tuple[Middle, str, dict[str, Any]]:
    """Register the visits, and write the transforms into an empty folder.

    Returns:
      Both visits in the middle space, a title for their picture, and fields of the record.
    """
    names = f"{request.time01} and {request.time02}"
    with clock.step("brain masks"):
        masks, doubts = _given_masks(request, words, scans)
    with clock.step("registering"):
        registered = without_coarse_images(register_visits(scans, masks))
        middle = bring_to_middle(registered)
        check_volume(middle.brain, f"{names}, in the field of view that they share")
        alignment = check_match(middle, names)
    _write_transforms(folder / TRANSFORMS, registered, middle)
    title = _title(name, registered, middle)
    fields = describe_registration(request, registered, middle, alignment)
    fields["warnings"] += doubts
    return middle, title, fields


def _correct_in(folder: Path, title: str, middle: Middle, clock: Stopwatch) -> tuple[float, ...]:
    """Correct the bias of both visits, and write images, mask and picture into a folder.

    Returns:
      The largest over the smallest value of the bias field, for each visit.
    """

    def correct(name: str, image: sitk.Image) -> tuple[float, np.ndarray]:
        # Written here, so that only the picture's view of it stays in memory.
        corrected = correct_bias(image, middle.brain)
        write_image(folder / name, corrected, np.int16)
        return field_range(image, corrected, middle.brain), view_of(corrected, middle.brain)

    with clock.step("correcting bias"):
        (first_range, first), (second_range, second) = at_once(
            partial(correct, TIME01, middle.images[0]),
            partial(correct, TIME02, middle.images[1]),
            voxels=middle.brain.GetNumberOfPixels(),
        )
    with clock.step("writing"):
        write_image(folder / BRAIN_MASK, middle.brain, np.uint8)
        if middle.no_data is not None:
            write_image(folder / NO_DATA, middle.no_data, np.uint8)
        draw_pair(folder / PICTURE, title, (first, second), middle.brain)
    return first_range, second_range


def _given_masks(
    request: Request, words: list[str] | None, scans: tuple[Scan, Scan]
) -> tuple[tuple[sitk.Image | None, sitk.Image | None], tuple[str, ...]]:
    """Return the masks that the user gives, and warnings about their places.

    Raises:
      InputError: A mask has an implausible volume, or lies in the wrong place.
    """
    doubts: list[str] = []

    def given(scan: Scan, path: Path | None) -> sitk.Image | None:
        if words is not None:
            mask, name = run_command(words, scan), shlex.join(words)
        elif path is not None:
            mask, name = read_mask(path, scan), str(path)
        else:
            return None
        check_volume(mask, name)
        doubts.extend(check_fit(mask, name, scan))
        return mask

    first, second = (
        given(scan, path) for scan, path in zip(scans, request.brain_masks, strict=True)
    )
    return (first, second), tuple(doubts)


def _title(name: str, registered: Registered, middle: Middle) -> str:
    brain_ml = volume_ml(middle.brain)
    return f"{name}: correlation {registered.correlation:.3f}, brain {brain_ml:.0f} ml"


def _write_transforms(folder: Path, registered: Registered, middle: Middle) -> None:
    folder.mkdir()
    for name, transform in (
        ("middle_to_time01", middle.to_visits[0]),
        ("middle_to_time02", middle.to_visits[1]),
        ("time01_to_time02", registered.transform),
    ):
        sitk.WriteTransform(transform, str(folder / f"{name}.txt"))
    first = registered.visits[0]
    if first.to_atlas is not None:  # it is None if the user gave the brain masks
        to_atlas = compose(first.to_atlas.GetInverse(), middle.to_visits[0])
        sitk.WriteTransform(to_atlas, str(folder / TO_ATLAS))
