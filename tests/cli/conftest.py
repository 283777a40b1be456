"""Fixtures for predictions of a folder of patients."""

import pytest

from tests.support.runs import save_run


@pytest.fixture
def untrained_run(small_config, tmp_path):
    """Return the folder of a run with an untrained network."""
    small_config.predict.threshold = 0.3
    return save_run(tmp_path / "run", small_config)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def folder_flags(untrained_run, patients_root, out):
    return [f"--model={untrained_run}", f"--dataset={patients_root}", f"--output={out}"]
