"""A synthetic MSSEG-2 data set on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from msseg_jax.simulate.phantom.acquisition import (
    Acquisition,
    acquire,
    image_grid,
    moved,
    small_motion,
    work_grid,
)
from msseg_jax.simulate.phantom.experts import consensus, count_components, draw_experts
from msseg_jax.simulate.phantom.fields import interpolated_planes, stretch
from msseg_jax.simulate.phantom.head import build_head
from msseg_jax.simulate.phantom.lesions import Painter, PhantomLesion, Sites, draw_load
from msseg_jax.simulate.phantom.plan import PatientPlan, plan_patient
from msseg_jax.system.atomic import whole_folder
from msseg_jax.system.errors import InputError
from msseg_jax.system.machine import processors
from msseg_jax.system.processes import do_each
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, EXPERT, TIME01, TIME02
from msseg_jax.volumes.nifti import write_array


@dataclass(frozen=True)
class Summary:
    """What was written for one patient, counted on the consensus map."""

    patient: str
    spacing_mm: tuple[float, ...]
    shape: tuple[int, ...]
    new_lesions: int
    new_lesion_voxels: int
    new_lesion_mm3: float


@dataclass(frozen=True)
class PhantomPatient:
    """A rendered patient.

    Attributes:
        volumes: by file name; all of one shape.
        affine: 4 x 4, voxel indices to scanner mm (RAS).
        lesions: all lesions; centres are in head coordinates of the first visit.
    """

    volumes: dict[str, np.ndarray]
    affine: np.ndarray
    to_head_mm: np.ndarray
    lesions: list[PhantomLesion]


def render_patient(plan: PatientPlan, spacing_mm: float | None = None) -> PhantomPatient:
    """Return one patient, rendered in memory.

    Args:
        plan: from `plan_patient`.
        spacing_mm: forces voxels of this side, all three axes: larger than 1.2 makes small quick
            volumes for tests and demonstrations.
    """
    rng = plan.rng("anatomy")
    grid, affine = image_grid(plan, rng, (spacing_mm,) * 3 if spacing_mm else None)
    head = build_head(work_grid(grid), rng)
    motion = small_motion(plan.rng("time02"))
    painters = Painter(grid, head, np.eye(4)), Painter(grid, head, motion)
    load = draw_load(plan, Sites.of(head), painters[1])
    volumes = {}
    for visit, name in enumerate((TIME01, TIME02)):
        signal = head.signal
        if visit == 1:
            near = head.brain.hull_mm < 3
            signal = moved(signal, head.grid, motion, head.brain_box, near)
        signal = stretch(signal, grid.shape)
        painter = painters[visit]
        for lesion in load.old:
            if lesion.contrast[visit] > 0:
                drawn = painter.draw(lesion, visit, load.claims)
                painter.blend(signal, lesion, visit, drawn)
        if visit == 1:
            for lesion, drawn in load.recent:
                painter.blend(signal, lesion, visit, drawn)
        scan = Acquisition.draw(plan)[visit]
        # A stream of its own for what the scanner adds; the settings used another one.
        noise_rng = np.random.default_rng([plan.seed, plan.index, 100 + visit])
        volumes[name] = acquire(signal, head.inside, grid.spacing_mm, scan, noise_rng, plan.dtype)
        del signal
    masks = draw_experts(load, painters[1].grid, plan.rng("experts"))
    volumes[CONSENSUS] = consensus(masks).astype(np.uint8)
    for number, mask in enumerate(masks, start=1):
        volumes[EXPERT.format(number)] = mask.view(np.uint8)
    brain = np.empty(grid.shape, np.uint8)
    for out, level in zip(brain, interpolated_planes(head.hull_mm, grid.shape), strict=True):
        out[...] = level < 0
    volumes[BRAIN_MASK] = brain
    lesions = [lesion for lesion, _ in load.recent] + load.old
    return PhantomPatient(volumes, affine, grid.to_head_mm, lesions)


def write_patient(
    plan: PatientPlan, output: Path, spacing_mm: float | None, overwrite: bool
) -> Summary:
    """Render and write one patient. Its folder appears when it is complete."""
    patient = render_patient(plan, spacing_mm)
    with whole_folder(output / plan.name, replace=overwrite) as folder:
        for name, volume in patient.volumes.items():
            write_array(folder / name, volume, patient.affine, time_unit="sec")
    truth = patient.volumes[CONSENSUS]
    spacing = tuple(round(float(mm), 4) for mm in np.linalg.norm(patient.affine[:3, :3], axis=0))
    voxels = int(truth.sum())
    return Summary(
        plan.name,
        spacing,
        truth.shape,
        count_components(truth),
        voxels,
        float(voxels * np.prod(spacing)),
    )


def check_request(
    output: Path,
    patients: int,
    seed: int,
    jobs: int | None,
    spacing_mm: float | None,
    overwrite: bool,
) -> None:
    """Raise InputError or OSError, naming the flag, what was found and what to do."""
    if patients < 1:
        raise InputError(f"--patients={patients}: expected 1 or more")
    if seed < 0:
        raise InputError(f"--seed={seed}: expected 0 or more")
    if jobs is not None and jobs < 1:
        raise InputError(
            f"--jobs={jobs}: expected 1 or more processes; leave it out to use all processors"
        )
    if spacing_mm is not None and not 0.5 <= spacing_mm <= 4:
        raise InputError(
            f"--spacing_mm={spacing_mm}: expected a voxel size from 0.5 to 4 mm; leave it out for "
            "a different one per patient"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".phantom_probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"--output={output}: cannot write there ({error.strerror}); name a folder that you may "
            "write to"
        ) from error
    names = [plan_patient(seed, index).name for index in range(patients)]
    taken = [name for name in names if (output / name).exists()]
    if taken and not overwrite:
        raise FileExistsError(
            f"--output={output}: already holds {len(taken)} of the {patients} patients "
            f"({taken[0]} first); name another folder, or add --overwrite to replace them"
        )


def write_phantoms(
    output: Path,
    patients: int,
    seed: int,
    *,
    jobs: int | None = None,
    spacing_mm: float | None = None,
    overwrite: bool = False,
) -> list[Summary]:
    """Write a synthetic MSSEG-2 data set, and return a summary of each patient, in order.

    Patient k depends only on `seed` and k, neither on `patients` nor on `jobs`.

    Args:
        output: folder, made if absent; one sub-folder per patient.
        patients: how many; 29 of 40 have new lesions.
        seed: 0 or more.
        jobs: patients at the same time, each in a process; one per processor by default. With
            more than one, call this below `if __name__ == "__main__":`, because the processes
            import the main module.
        spacing_mm: forces isotropic voxels of this size, 0.5 to 4 mm: 2 makes small quick volumes.
        overwrite: replaces patients of the same name.

    Raises:
        InputError, OSError: what `check_request` refuses.
        InputError: a patient could not be made; those before are there.
    """
    output = Path(output)
    check_request(output, patients, seed, jobs, spacing_mm, overwrite)
    plans = [plan_patient(seed, index, patients) for index in range(patients)]
    tasks = {plan.name: plan for plan in plans}
    jobs = min(jobs or processors(), patients)
    write = partial(write_patient, output=output, spacing_mm=spacing_mm, overwrite=overwrite)
    failures: dict[str, str] = {}
    written = do_each(write, tasks, jobs, failures, until_failure=True)
    summaries = dict(tqdm(written, "phantoms", patients, disable=None, leave=False))
    if failures:
        raise InputError("\n".join(f"{name}: {reason}" for name, reason in failures.items()))
    return [summaries[name] for name in tasks]
