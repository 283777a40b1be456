"""Which form an NVIDIA GPU uses for each pass of each layer.

Which form is the fastest depends on the card, the versions and the shapes. So they are timed once
on each machine, before a training (`measuring`), and the results are kept in the user's cache
folder (`msseg_jax.system.cache_folder`). Every other program only looks there. Where nothing was
timed, the plain form is used.

The environment variable MSSEG_JAX_GPU_FORMS=0 turns this off: the plain form is then used.
"""

import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from msseg_jax.network.convolution.candidates import CANDIDATES
from msseg_jax.network.convolution.form import Form, LayerShape, Pass
from msseg_jax.network.convolution.job import Job, Outcome
from msseg_jax.network.convolution.plain import PLAIN
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.cache_folder import cache_folder

SWITCH = "MSSEG_JAX_GPU_FORMS"
CLEARLY_FASTER = 0.95  # another form must take less than this share of the plain form's time
FORMAT = 1  # of the file
SETTINGS = ("XLA_FLAGS", "JAX_DEFAULT_MATMUL_PRECISION", "NVIDIA_TF32_OVERRIDE")
FORMS: Mapping[str, Form] = {form.name: form for form in (PLAIN, *CANDIDATES)}

logger = logging.getLogger(__name__)

Outcomes = Mapping[str, Sequence[Outcome]]  # by the text of a job


def why_not() -> str:
    """Return why this process uses the plain form everywhere; an empty text if it does not."""
    if os.environ.get(SWITCH, "1") == "0":
        return f"turned off by {SWITCH}=0"
    backend = jax.default_backend()
    if backend != "gpu" or "cuda" not in _platform_version().lower():
        return f"not timed on {backend}"
    return ""


def form_for(layer: LayerShape, which: Pass) -> Form:
    """Return the form that this process uses on a GPU for a pass of a layer."""
    return PLAIN if why_not() else FORMS[chosen(known().get(str(Job(layer, which)), ()))]


def chosen(outcomes: Sequence[Outcome]) -> str:
    """Return the name of the fastest form; the plain one unless another is clearly faster."""
    seconds = {o.form: o.seconds for o in outcomes if o.seconds is not None}
    if PLAIN.name not in seconds:
        return PLAIN.name  # nothing was compared with it
    fastest = min(seconds, key=lambda form: seconds[form])
    return fastest if seconds[fastest] < CLEARLY_FASTER * seconds[PLAIN.name] else PLAIN.name


# --------------------------------------------------------------------------------- what is known

_known: dict[str, Sequence[Outcome]] | None = None  # None: the file has not been read yet


def known() -> Outcomes:
    """Return what was timed on this card, from the file or from `adopt`."""
    global _known
    if _known is None:
        _known = dict(read(path()))
    return _known


def adopt(outcomes: Outcomes) -> None:
    """Use exactly these outcomes in this process, whatever the file says."""
    global _known
    _known = dict(outcomes)


def add(outcomes: Outcomes) -> None:
    """Use these outcomes, too, and write them into the file."""
    global _known
    _known = _merged(known(), outcomes)
    file = path()
    if file is None:
        return
    # Read again, because another process may have written meanwhile.
    whole = _merged(read(file), outcomes)
    try:
        write_beside(file, lambda partial: partial.write_text(as_text(whole), encoding="utf-8"))
    except OSError as error:
        logger.debug("%s cannot be written: %s", file, error)


def _merged(old: Outcomes, new: Outcomes) -> dict[str, Sequence[Outcome]]:
    """Return the outcomes of both. Of a form's two times, the shorter one counts."""
    merged = dict(old)
    for job, of_job in new.items():
        forms = {o.form: o for o in merged.get(job, ())}
        for o in of_job:
            before = forms.get(o.form, o).seconds
            if before is None or o.seconds is None or o.seconds <= before:
                forms[o.form] = o
        merged[job] = list(forms.values())
    return merged


# --------------------------------------------------------------------------------------- the file


def path() -> Path | None:
    """Return the file for this card and these versions; None without a cache folder."""
    folder = cache_folder()
    return folder / f"gpu_forms-{_digest()}.json" if folder else None


def read(file: Path | None) -> Outcomes:
    """Return the outcomes in a file. A file that is missing, damaged or foreign has none."""
    if file is None:
        return {}
    try:
        return from_text(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not JSON, or not text
        logger.debug("%s is not used: %s", file, error)
        return {}


def as_text(outcomes: Outcomes) -> str:
    """Return the content of a file with these outcomes."""
    jobs = {
        job: [{"form": o.form, "seconds": o.seconds, "reason": o.reason} for o in of_job]
        for job, of_job in sorted(outcomes.items())
    }
    return json.dumps({"format": FORMAT, "card": card(), "timed": jobs}, indent=1)


def from_text(text: str) -> Outcomes:
    """Return the outcomes in a text that `as_text` made.

    Raises:
      ValueError: it is not such a text.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("not a file of this format")
    timed = content.get("timed")
    if content.get("card") != card() or not isinstance(timed, dict):
        raise ValueError("not a file for this card")
    return {job: [_outcome(entry) for entry in _list(of_job)] for job, of_job in timed.items()}


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise ValueError("not a list of outcomes")
    return value


def _outcome(entry: Any) -> Outcome:
    if not isinstance(entry, dict) or set(entry) != {"form", "seconds", "reason"}:
        raise ValueError("not an outcome")
    form, seconds, reason = entry["form"], entry["seconds"], entry["reason"]
    if not isinstance(form, str) or form not in FORMS or not isinstance(reason, str):
        raise ValueError("not an outcome of a known form")
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ValueError("not a time")
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError("not a positive time")
    return Outcome(form, seconds, reason)


# --------------------------------------------------------------------------------------- the card


def card() -> str:
    """Return the kind of this process's first device, such as 'NVIDIA H100 80GB HBM3'."""
    return jax.local_devices()[0].device_kind


def _platform_version() -> str:
    return jax.local_devices()[0].client.platform_version


@functools.cache
def _digest() -> str:
    """Return a text that differs for other cards, versions, XLA flags and forms."""
    key = hashlib.sha256()
    settings = [os.environ.get(name, "") for name in SETTINGS]
    for part in (card(), _platform_version(), jax.__version__, *settings):
        key.update(part.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        key.update(file.read_bytes())
    return key.hexdigest()[:20]
