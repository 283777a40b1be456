import subprocess
import sys

import pytest

from tests.support.session import ROOT

COMMANDS = {
    "export": ["-m", "msseg_jax", "export", "--show"],
    "describe": ["launch.py", "--config=configs/msseg2.py", "--mode=describe"],
    "predict": ["-m", "msseg_jax", "predict", "-t1", "a.nii", "-t2", "b.nii", "-o", "c.nii"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_platform_that_cannot_start_is_named_and_no_file_is_blamed(command, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    done = subprocess.run(
        [sys.executable, *COMMANDS[command]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "JAX_PLATFORMS is 'no_such_platform', but JAX cannot start" in done.stderr
    assert "Unset this" in done.stderr
    assert "Traceback" not in done.stderr
    assert "damaged" not in done.stderr
