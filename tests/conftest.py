"""Fixtures that several folders of tests use."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from msseg_jax.network import native
from msseg_jax.volumes import layout
from tests.support import tiny
from tests.support.patients import make_patients
from tests.support.runs import save_run
from tests.support.session import HAS_NATIVE


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(params=["native", "plain"] if HAS_NATIVE else ["plain"])
def form(request, monkeypatch) -> str:
    """Select each form of convolution and batch normalisation that this CPU has, in turn."""
    if request.param == "native":
        assert native.available(), native.state()[1]
    monkeypatch.setattr(native, "available", lambda: request.param == "native")
    return request.param


@pytest.fixture
def patients_root(tmp_path) -> Path:
    """Return a folder with four patients."""
    return make_patients(tmp_path / "patients")


@pytest.fixture
def small_config(patients_root) -> ConfigDict:
    """Return a configuration that trains in seconds on the patients of `patients_root`."""
    config = tiny.get_config()
    config.data.root = str(patients_root)
    return config


@pytest.fixture
def runs(small_config, tmp_path) -> list[Path]:
    """Return three untrained runs that differ in weights, intensity landmarks or voxel spacing."""
    small_config.predict.threshold = 0.3
    one = save_run(tmp_path / "one", small_config, seed=0)
    two = save_run(tmp_path / "two", small_config, seed=1, middle=30.0)
    small_config.data.spacing_mm = 0.9
    return [one, two, save_run(tmp_path / "three", small_config, seed=2)]


@pytest.fixture
def flags(patients_root, tmp_path) -> list[str]:
    """Return flags of `predict` for the first patient, without --model."""
    patient = patients_root / "patient_0"
    return [
        "-t1", str(patient / layout.TIME01),
        "-t2", str(patient / layout.TIME02),
        f"--mask={patient / layout.BRAIN_MASK}",
        "-o", str(tmp_path / "new.nii.gz"),
    ]  # fmt: skip
