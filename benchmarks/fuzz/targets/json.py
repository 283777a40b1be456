"""All JSON records that commands read, each by the function that reads it."""

import json
import random
import sys
from collections.abc import Callable
from datetime import date, time
from pathlib import Path
from typing import Any

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_json, mutate_place
from benchmarks.fuzz.targets._networks import RELIABILITY
from msseg_jax.configuration.sections import Configuration
from msseg_jax.data.cache import Measures
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.inference.record import earlier_record
from msseg_jax.models.folds import Folds, runs_of
from msseg_jax.models.model_file import About, Beginning
from msseg_jax.models.networks import started_from
from msseg_jax.models.reliability import read_reliability
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.prepare.record import read_record
from msseg_jax.system.json_files import read_json
from msseg_jax.system.shown import shown
from msseg_jax.training.log import TrainingLog
from msseg_jax.volumes.layout import SYNTHETIC, patient_in, scan_of

NAME = "json"

_VISIT = {
    "path": "first.nii.gz", "series": None, "acquired_on": None, "acquired_at": None,
    "voxels": [20, 22, 24], "spacing_mm": [1.0, 1.0, 1.2], "brain_ml": 1400.5,
    "correlation_with_atlas": 0.91, "grey_to_white": 1.2,
}  # fmt: skip
_PAIR = {
    "asked_for": {"time01": "first.nii.gz", "settings": {"spacing_mm": 1.0}, "masks": [None, 1]},
    "made_by": {"msseg_jax": "0.1.0", "numpy": "2.0"},
    "time01": _VISIT,
    "time02": _VISIT | {
        "series": "FLAIR", "acquired_on": "2020-01-02", "acquired_at": "10:11:12",
        "correlation_with_atlas": None,
    },
    "registration": {
        "turned_degrees": 1.2, "moved_mm": 3.4, "correlation": 0.9, "gain_by_mirroring": 0.0,
        "edges_correlation": 0.8, "apart_mm": 0.3,
    },
    "brain": {"source": "atlas", "ml": 1390.0, "in_one_visit_only_ml": 0.0},
    "bias_field": {
        "full_width_at_half_maximum": 0.15, "iterations": [50, 50], "shrink_factor": 4,
        "control_points": 4, "largest_over_smallest": [1.3, 1.4],
    },
    "warnings": ["The visits differ."],
    "seconds": {"read": 0.1},
}  # fmt: skip
_PREDICTION = {
    "format": 1, "made_by": {"msseg_jax": "0.1.0"}, "patient": "anna", "finished": True,
    "networks": [{"source": "weights", "checkpoint": "best, step 436", "sha256": "0" * 64}],
    "options": {"threshold": 0.5, "overlap": None, "batch_size": 4},
    "inputs": {"first visit": {"path": "first.nii.gz", "sha256": "1" * 64}}, "scans": None,
    "outputs": {"mask": "anna.nii.gz"}, "lesions": 4, "volume_mm3": 2405.5,
    "warnings": ["The visits differ."], "seconds": 9.5,
    "other_lesions": {"enlarging": {"lesions": 2, "volume_mm3": 80.5}},
    "finished_at": "2026-01-02T03:04:05+00:00",
}  # fmt: skip
_LOG = [
    {"step": 20, "loss": 0.5, "seconds": 1.25},
    {"step": 40, "loss": 0.25, "validation": {"dice": 0.5, "per_patient": {"a": 0.5}}},
    {"step": 60, "loss": 0.125},
]


def make(folder: Path) -> None:
    """Write one record of each kind."""
    config = Configuration()
    records = {
        "prepare.json": _PAIR,
        "anna.json": _PREDICTION,
        "predicted.json": {"kind": "best", "step": 436},
        "folds.json": {"fold_0": ["a", "b"], "fold_1": ["c"], "fold_2": ["d", "e"]},
        "split.json": {"training": {"a": "0123456789abcdef", "b": "f" * 16}, "validation": {}},
        "initial.json": Beginning(
            network="released", about=About(name="n", licence="CC-BY", attribution="A\nB")
        ).model_dump(mode="json"),
        "config.json": config.model_dump(mode="json"),
        "preprocessing.json": Preprocessing(
            settings=config.data.preprocessing,
            landmarks=tuple(float(k) for k in range(11)),
            deviation=2.5,
        ).model_dump(mode="json"),
        "measures.json": {
            "histograms": [[0.0, 50.0, 100.0], [1.0, 51.0, 99.0]], "lesion_voxels": 12,
            "changed_voxels": 0,
            "shape": [60, 61, 62], "digest": "0123456789abcdef",
        },
        "reliability.json": RELIABILITY.model_dump(mode="json"),
        SYNTHETIC: {"source": "scan_1", "number": 3, "lesions": [{"mm3": 30.5}], "seed": 0},
    }  # fmt: skip
    for name, record in records.items():
        (folder / name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in _LOG), encoding="utf-8"
    )


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Write one damaged record."""
    source = rng.choice(sorted(seeds.iterdir()))
    path = case / source.name
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".jsonl":
        lines = [line.encode() for line in text.splitlines()]
        at = rng.randrange(len(lines))
        lines[at] = mutate_json(rng, lines[at].decode()).strip()
        path.write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"\n", b"", b"\n\n")))
    else:
        path.write_bytes(mutate_json(rng, text))
    if rng.random() < 0.03:
        mutate_place(rng, path)


def use(case: Path) -> None:
    """Read the record, and compare it with what Python's own reader finds in the file."""
    names = [path.name for path in case.iterdir()]
    if not names:
        read_json(case / "missing.json")
    _READERS[names[0]](case / names[0])


def _section(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        # Fields that the file lacks were added later. They have their defaults.
        _expect(read(path).model_dump(exclude_unset=True), _content(path), path)

    return check


def _content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _expect(found: object, content: object, path: Path) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # only here: the program must do with the usual limit
    try:
        same = as_text(found) == as_text(content)
    finally:
        sys.setrecursionlimit(limit)
    if not same:
        raise WrongReading(f"{path.name}: read {shown(found)}, not {shown(content)}")


def as_text(value: Any) -> str:
    """Return a text that is equal only for equal values. A whole number may be read as real."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{key!r}:{as_text(one)}" for key, one in value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_text, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return repr(float(value))
    if isinstance(value, date | time):
        return repr(value.isoformat())
    return repr(value)


def _plain(path: Path) -> None:
    _expect(read_json(path), _content(path), path)


def _folds(path: Path) -> None:
    patients = Folds(path.parent).load()
    content = _content(path)
    _expect(patients, [content[f"fold_{k}"] for k in range(len(content))], path)
    runs = runs_of([path.parent], "c")
    own = [fold for fold, names in enumerate(patients) if "c" in names] or range(len(patients))
    expected = [path.parent / f"fold_{fold}" for fold in own] or [path.parent]
    if runs != expected:
        raise WrongReading(f"{path.name}: runs {runs}, not {expected}")


def _config(path: Path) -> Configuration:
    return RunFolder(path.parent).configuration()


def _initial(path: Path) -> None:
    about = started_from(RunFolder(path.parent))
    found = None if about is None else about.model_dump(mode="json")
    _expect(found, _content(path)["about"] if path.is_file() else None, path)


def _synthetic(path: Path) -> None:
    scan = scan_of(patient_in(path.parent))
    _expect(scan, _content(path)["source"] if path.is_file() else None, path)


def _measures(path: Path) -> Measures:
    return Measures.of(read_json(path), str(path))


def _prediction(path: Path) -> None:
    record = earlier_record(path)
    found = None if record is None else record.model_dump()
    _expect(found, _content(path) if path.exists() else None, path)


def _pair_record(path: Path) -> None:
    found, content = read_record(path).model_dump(), _content(path)
    for visit in ("time01", "time02"):  # a record of an early version has no dates
        for name in found[visit].keys() - content[visit].keys():
            if found[visit][name] is None and name in ("acquired_on", "acquired_at"):
                del found[visit][name]
    _expect(found, content, path)


def _log(path: Path) -> None:
    """Continue a log at step 40, whose validation is done: its first two lines must stay."""
    before = path.read_bytes() if path.is_file() else b""
    log = TrainingLog(path, 4, 100, lambda step: 0.1, None)
    with log:
        log.begin(40, validated=True)
    kept = path.read_bytes().splitlines()
    for number, line in enumerate(before.splitlines()):
        if number < 2 and line == json.dumps(_LOG[number]).encode() and line not in kept:
            raise WrongReading(f"{path.name}: the intact line {number} is lost")
    if json.dumps(_LOG[2]).encode() in kept:
        raise WrongReading(f"{path.name}: line 2 will be written twice")


_READERS: dict[str, Callable[[Path], None]] = {
    "prepare.json": _pair_record,
    "anna.json": _prediction,
    "predicted.json": _plain,
    "folds.json": _folds,
    "split.json": _plain,
    "initial.json": _initial,
    "config.json": _section(_config),
    "preprocessing.json": _section(Preprocessing.load),
    "measures.json": _section(_measures),
    "reliability.json": _section(read_reliability),
    SYNTHETIC: _synthetic,
    "log.jsonl": _log,
}
