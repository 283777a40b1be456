"""The command `msseg` as a whole: what every sub-command has in common."""

import subprocess
import sys
import threading

import pytest

from msseg_jax import __version__
from msseg_jax.cli.main import COMMANDS, main
from msseg_jax.cli.main import run as run_command
from msseg_jax.system.interruption import EXIT_STATUS, Stopped
from msseg_jax.training import experiment
from tests.support.session import ROOT

# What takes long to import. The flags are parsed without any of it.
HEAVY = ("jax", "numpy", "scipy", "nibabel", "pandas", "matplotlib", "SimpleITK", "nilearn")


@pytest.fixture(scope="module")
def light() -> str:
    """The output of a process that answers all questions about flags."""
    code = f"""
import sys
from msseg_jax.cli.main import COMMANDS, main
for arguments in [["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)]:
    try:
        main(arguments)
    except SystemExit as end:
        print(arguments, "ended with", end.code)
print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_version_need_nothing_heavy_and_exit_with_0(light):
    assert light.endswith("imported: []\n")
    assert f"msseg {__version__}\n" in light
    for arguments in (["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)):
        assert f"{arguments} ended with 0\n" in light


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_an_example(light, name):
    assert f"examples:\n  msseg {name} -" in light
    assert f"usage: msseg {name} [-h]" in light


def test_the_help_of_launch_lists_the_modes_and_the_fields():
    done = subprocess.run(
        [sys.executable, "launch.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    for said in ("launch.py --config=", "cross_validate: ", "--config.data.spacing_mm=0.8"):
        assert said in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["nothing", "--help"],
            "'nothing' is neither a command nor a flag; expected one of predict, prepare, train",
        ),
        (["predict", "-o", "a.nii.gz"], "expected -t1 and -t2 (one pair), or --dataset"),
        (["train", "--config=msseg2", "--workdri=x"], "unrecognized arguments: --workdri=x"),
        (["train", "--config=msseg2", "stray"], "unrecognized arguments: stray"),
        (["train", "--config=msseg2", "--config.seed", "1", "2"], "unrecognized arguments: 2"),
        (["train", "--config=msseg2", "--mode=sing"], "invalid choice: 'sing'"),
        (["describe", "--config=msseg2", "--config.seed=-1"], "config.seed is -1; expected 0 or"),
        (["describe", "--config=mseg2"], "--config=mseg2: no such file; expected the path"),
        (["export", "--show", "--threshold=0.5"], "--show excludes --threshold"),
    ],
)
def test_wrong_flags_exit_with_2(capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_an_override_may_stand_behind_a_space(capsys):
    assert main(["describe", "--config", "msseg2", "--config.model.targets", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"parameters: {40465 - 4 * 6}\n")


def test_a_training_that_was_asked_to_stop_exits_with_75(monkeypatch, tmp_path, capsys):
    def stop(*_):
        raise Stopped("stored step 3")

    monkeypatch.setattr("msseg_jax.cli.train.run_experiment", stop)
    assert experiment.run_experiment is not stop
    flags = ["--config=msseg2", f"--workdir={tmp_path}"]
    assert run_command("train", flags, "launch.py") == EXIT_STATUS
    assert "stored step 3" in capsys.readouterr().out


def test_a_command_may_run_outside_the_main_thread():
    """As in a notebook's or a server's worker, where no signal handler can be set."""
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(main(["describe", "--config=demo"])))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_a_reader_that_closes_the_output_early_sees_no_error():
    command = f"{sys.executable} -m msseg_jax export --show | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("file ")
