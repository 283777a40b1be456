"""Layers and outcomes for tests of the forms of the convolution that are timed on a GPU."""

from msseg_jax.network.convolution import choice
from msseg_jax.network.convolution.form import LayerShape
from msseg_jax.network.convolution.job import Job, Outcome

LAYER = LayerShape(2, (3, 4, 5), (2, 1), 3, 3, "float32")
JOB = Job(LAYER, "forward")
FASTER = [Outcome("plain", 2.0), Outcome("shifted 4", 1.0), Outcome("kernels 4", None, "no Triton")]


def forget(monkeypatch):
    """Act like a new process."""
    monkeypatch.setattr(choice, "_known", None)
