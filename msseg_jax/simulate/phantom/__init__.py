"""Synthetic patients (phantoms) with FLAIR-like images, known new lesions and the MSSEG-2 layout.

With phantoms you can try the whole program without medical data. Scores on phantoms say nothing
about real patients.

    msseg phantom --output phantoms --patients 8 --seed 0

The modules, from the outermost to the innermost: `writer` (folders and files), `plan` (draws the
new lesions and the scanner of each patient), `acquisition` (simulates the scanner), `experts`
(draws the labels), `lesions`, `head` and `anatomy` (build the object that is scanned), `fields`
(random functions that the other modules use).
"""

from msseg_jax.simulate.phantom.experts import consensus
from msseg_jax.simulate.phantom.plan import PatientPlan, plan_patient
from msseg_jax.simulate.phantom.writer import Summary, render_patient, write_phantoms

__all__ = [
    "PatientPlan",
    "Summary",
    "consensus",
    "plan_patient",
    "render_patient",
    "write_phantoms",
]
