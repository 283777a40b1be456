"""launch.py, started in a process as a user starts it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def launch(*flags):
    return subprocess.run(
        [sys.executable, "launch.py", *flags], cwd=ROOT, capture_output=True, text=True
    )


def test_describe_prints_the_number_of_parameters_of_the_paper():
    done = launch("--config=configs/msseg2.py", "--mode=describe")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["convolutions: 28", "parameters: 40465"]


def test_a_missing_library_is_named_with_the_remedy(tmp_path):
    """Run launch.py with a Python that finds the package, but not the libraries that it needs."""
    (tmp_path / "launch.py").write_text((ROOT / "launch.py").read_text())
    (tmp_path / "msseg_jax").symlink_to(ROOT / "msseg_jax")
    done = subprocess.run(
        [sys.executable, "-S", "launch.py"], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(
        r"launch.py: the Python library \w+ is missing. Run `make install` and then `. "
        r".venv/bin/activate`, or install the package with `pip install .`.\n",
        done.stderr,
    )


def test_overrides_reach_the_configuration():
    done = launch("--config=configs/msseg2.py", "--mode=describe", "--config.model.targets=1")
    assert done.stdout.splitlines()[-1] == f"parameters: {40465 - 4 * 6}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config.train.batch_sice=8"],
            "config.train has no field 'batch_sice'; did you mean config.train.batch_size?",
        ),
        (["--config.data.root=nowhere"], "nowhere: no such folder"),
        (
            ["--config.data.patch_size=50", "--mode=describe"],
            "patch side 50 is not a multiple of 8",
        ),
        (["--config.seed=-1"], "config.seed is -1; expected 0 to 4294967295"),
        (["--config.model.initial_probability=1.0", "--mode=describe"], "between 0 and 1"),
        (
            ["--config.data.phantom_patients=4", "--config.data.validation_patients=4"],
            "config.data.validation_patients is 4; expected 0 to 3, because at least one of the 4 ",
        ),
        (["--mode=cross_validate"], "config.data.folds is 0 and config.data.fold is 0"),
        (
            ["--config.data.phantom_patients=4", "--config.data.folds=5"],
            "config.data.folds is 5, but there are only 4 patients. Use at most 4",
        ),
        (
            ["--mode=cross_validate", "--config.data.folds=5", "--config.data.fold=5"],
            "config.data.fold is 5; expected the number of a fold, from 0 to 4",
        ),
        (["--config.data.patch_size=50"], "patch side 50 is not a multiple of 8"),
        (["--config.train.batch_size=many"], "--config.train.batch_size=many"),
        (["extra"], "unexpected argument 'extra'."),
    ],
)
def test_bad_input_gives_a_short_message_and_creates_no_run(flags, message, tmp_path):
    done = launch("--config=configs/msseg2.py", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
