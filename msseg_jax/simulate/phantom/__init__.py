"""Synthetic patients with the look of FLAIR and the layout of MSSEG-2, with known new lesions.

They make it possible to try everything without any medical data. What a network learns from them
says nothing about real patients.

    msseg phantom --output phantoms --patients 8 --seed 0

From the outside in: `writer` (folders and files), `plan` (who has which lesions), `acquisition`
(the scanner), `experts` (labels), `lesions`, `head` and `anatomy` (what is scanned), `fields`
(random functions that all of them use).
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
