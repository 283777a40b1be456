"""Write a synthetic data set (phantoms) in the MSSEG-2 layout."""

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
from msseg_jax.system.words import count_of
from msseg_jax.volumes.layout import (
    BRAIN_MASK,
    CONSENSUS,
    EXPERT,
    TIME01,
    TIME02,
    check_not_in_patient,
)
from msseg_jax.volumes.nifti import write_array


@dataclass(frozen=True)
class Summary:
    """Summary of one written patient. The new lesions are counted in the consensus map."""

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
        volumes: {file name: volume}; all have the same shape.
        affine: 4 x 4, voxel indices to scanner mm (RAS).
        to_head_mm: 4 x 4, voxel indices to head coordinates, mm.
        lesions: all lesions; their centres are in head coordinates of the first visit.
    """

    volumes: dict[str, np.ndarray]
    affine: np.ndarray
    to_head_mm: np.ndarray
    lesions: list[PhantomLesion]


def render_patient(plan: PatientPlan, spacing_mm: float | None = None) -> PhantomPatient:
    """Render one patient in memory.

    Args:
        plan: from `plan_patient`.
        spacing_mm: isotropic voxel size that replaces the planned one. More than 1.2 gives small
            volumes quickly, for tests and demonstrations.
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
        # Coil sensitivity and noise use a separate stream from that of the settings.
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
    """Render and write one patient. The folder appears only when it is complete."""
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
    """Raise InputError or OSError if a flag has a wrong value or the output cannot be written."""
    if patients < 1:
        raise InputError(f"--patients={patients}: expected 1 or more.")
    if seed < 0:
        raise InputError(f"--seed={seed}: expected 0 or more.")
    if jobs is not None and jobs < 1:
        raise InputError(
            f"--jobs={jobs}: expected 1 or more processes. Omit this flag to use all processors."
        )
    if spacing_mm is not None and not 0.5 <= spacing_mm <= 4:
        raise InputError(
            f"--spacing_mm={spacing_mm}: expected a voxel size from 0.5 to 4 mm. Omit this flag to "
            "use the planned voxel size of each patient."
        )
    check_not_in_patient("--output", output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".phantom_probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"--output={output}: cannot write to this folder ({error.strerror}). Name a folder "
            "that you may write to."
        ) from error
    names = [plan_patient(seed, index).name for index in range(patients)]
    taken = [name for name in names if (output / name).exists()]
    if taken and not overwrite:
        raise FileExistsError(
            f"--output={output}: the folder already contains {len(taken)} of the "
            f"{count_of(patients, 'patient')}; the first is {taken[0]}. Name another folder, or "
            "add --overwrite to replace these patients."
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

    Patient k depends on `seed`, k and `spacing_mm`, but not on `patients` or `jobs`.

    Args:
        output: folder with one sub-folder per patient; it is created if it does not exist.
        patients: number of patients; 29 of 40 have new lesions.
        seed: 0 or more.
        jobs: number of patients made at the same time, each in its own process; by default one per
            processor. With more than one, call this function below `if __name__ == "__main__":`,
            because the processes import the main module.
        spacing_mm: isotropic voxel size from 0.5 to 4 mm that replaces the planned one; 2 gives
            small volumes quickly.
        overwrite: replace existing patients with the same name.

    Raises:
        InputError, OSError: `check_request` finds a problem.
        InputError: a patient could not be made. The patients that are complete are kept.
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
