"""The command `msseg`: what all its commands have in common."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from msseg_jax import __version__
from msseg_jax.cli.command_line import build_parser, parse
from msseg_jax.cli.main import COMMANDS, PROGRAM, main, show_warnings
from msseg_jax.cli.main import run as run_command
from msseg_jax.system.interruption import EXIT_STATUS, Stopped
from msseg_jax.training import experiment
from tests.support.session import ROOT

# Libraries that are slow to import. Parsing flags must not import them.
HEAVY = (
    "jax",
    "numpy",
    "scipy",
    "nibabel",
    "pandas",
    "matplotlib",
    "SimpleITK",
    "nilearn",
    "pydicom",
)


@pytest.fixture(scope="module")
def helps() -> str:
    """Return the output of a process that prints the version and the help of every command."""
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


def test_help_and_version_import_nothing_slow_and_exit_with_0(helps):
    assert helps.endswith("imported: []\n")
    assert f"msseg {__version__}\n" in helps
    for arguments in (["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)):
        assert f"{arguments} ended with 0\n" in helps


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_an_example(helps, name):
    assert f"examples:\n  msseg {name} -" in helps
    assert f"usage: msseg {name} [-h]" in helps


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_text_can_be_read_by_itself(name):
    for action in build_parser(name, PROGRAM)._actions:
        assert action.help[0].isupper(), action.help
        assert action.help.endswith("."), action.help
        states_default = "Default: " in action.help or "Required" in action.help
        assert states_default or action.dest in ("help", "show", "dataset"), action.dest


@pytest.mark.parametrize("name", COMMANDS)
def test_metavars_and_the_words_for_repeated_flags_are_the_same_in_all_commands(name):
    for action in build_parser(name, PROGRAM)._actions:
        is_path = action.type is Path
        assert not is_path or action.metavar in ("ROOT", "DIR", "FILE", "OUT", "SCAN", "MODEL")
        if action.dest in ("time01", "time02"):
            assert action.metavar == "SCAN"
        if action.dest in ("dataset", "reference"):
            assert action.metavar == "ROOT"
        if isinstance(action.default, list) or action.dest in ("model", "series"):
            assert (
                "Can be given several times" in action.help or "Can be given twice" in action.help
            )


def test_the_help_of_predict_is_grouped_by_purpose():
    groups = build_parser("predict", PROGRAM)._action_groups
    flags = {group.title: [a.dest for a in group._group_actions] for group in groups}
    first_words = {title.split()[0].rstrip(":"): dests for title, dests in flags.items() if dests}
    assert first_words == {
        "options": ["help"],
        "input": ["time01", "time02", "mask", "dataset"],
        "model": ["model"],
        "preparation": [
            "prepare", "series",
            "acquisition", "brain_mask01", "brain_mask02", "brain_mask_command",
            "allow_reversed",
        ],
        "output": [
            "output", "probability", "uncertainty", "changes", "lesions01", "lesions02", "report",
            "threshold", "min_lesion_mm3", "min_peak", "overwrite",
        ],
        "speed": ["overlap", "flips", "tile", "batch_size", "threads"],
    }  # fmt: skip


def test_required_flags_are_marked_in_the_usage(helps):
    for required in ("-o OUT", "--config CONFIG"):
        assert required in helps
        assert f"[{required}]" not in helps


def test_the_help_of_launch_lists_the_modes_and_the_fields():
    done = subprocess.run(
        [sys.executable, "launch.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    for text in ("launch.py --config=", "`cross_validate` ", "--config.data.spacing_mm=0.8"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nothing", "--help"],
            "'nothing' is neither a command nor a flag. Expected one of predict, prepare, train",
        ),
        (["predict", "-o", "a.nii.gz"], "expected -t1 and -t2 for one pair, or --dataset"),
        (["train", "--config=msseg2", "--config.seed", "1", "2"], "unexpected argument '2'."),
        (["train", "--config=msseg2", "--mode=sing"], "invalid choice: 'sing'"),
        (["describe", "--config=msseg2", "--config.seed=-1"], "config.seed is -1; expected 0 to"),
        (["describe", "--config=mseg2"], "--config=mseg2: no such file; expected the path"),
        (["export", "--show", "--threshold=0.5"], "--show excludes --threshold"),
    ],
)
def test_wrong_flags_exit_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # A required flag is misspelt, too: the report is about the unknown flag.
        ("predict --ouput=a.nii.gz", "unknown flag --ouput=a.nii.gz. Did you mean --output?"),
        ("predict --ouput a.nii.gz", "unknown flag --ouput. Did you mean --output?"),
        ("predict -o a --threshhold=1", "unknown flag --threshhold=1. Did you mean --threshold?"),
        ("predict -o a --t1=b", "unknown flag --t1=b. Did you mean -t1?"),
        ("predict -o a --zzz", "unknown flag --zzz."),
        ("predict -o a --zzz --tiel=8", "unknown flag --zzz. unknown flag --tiel=8. Did you mean "
         "--tile?"),
        (
            "predict -o a stray",
            "unexpected argument 'stray'. Give the scans as -t1 FIRST -t2 SECOND, and other flags "
            "as --name=value.",
        ),
        ("train --config=demo --workdri=x", "unknown flag --workdri=x. Did you mean --workdir?"),
        ("train --config=demo --confg.seed=1", "unknown flag --confg.seed=1. Did you mean "
         "--config.seed?"),
        ("train --config=demo stray", "unexpected argument 'stray'. Write each flag as "
         "--name=value."),
        ("evaluate --reference=a", "the following arguments are required: -o/--output."),
        ("evaluate --reference=a -o b", "expected --reference and --prediction, or --answers."),
        ("predict -o", "-o/--output: expected one argument."),
        ("predict -o a --tile=0", "--tile: 0 is out of range. Expected a whole number, 1 or more."),
        ("predict -o a --tile=x", "--tile: 'x' is not valid. Expected a whole number, 1 or more."),
    ],
)  # fmt: skip
def test_a_wrong_flag_gives_one_line_with_a_hint(capsys, arguments, message):
    command, *flags = arguments.split(" ")
    with pytest.raises(SystemExit) as end:
        main([command, *flags])
    assert end.value.code == 2
    expected = f"msseg {command}: error: {message} See msseg {command} --help.\n"
    assert capsys.readouterr().err == expected


def test_an_unknown_command_gives_one_line_with_a_hint(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predct"])
    error = capsys.readouterr().err
    assert error.startswith("msseg: error: 'predct' is neither a command nor a flag. ")
    assert error.endswith("Did you mean predict? See msseg --help.\n")
    assert error.count("\n") == 1


def test_errors_of_launch_name_its_own_help(capsys):
    with pytest.raises(SystemExit, match="2"):
        run_command("train", ["--config=demo", "--zzz"], "launch.py")
    expected = "launch.py: error: unknown flag --zzz. See python launch.py --help.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict --dataset={no} -o {out}", "--dataset={no}: no such folder. Expected a folder in"),
        ("predict --dataset={no} -o {out} --prepare", "--dataset={no}: no such folder. Expected"),
        ("prepare --dataset={no} -o {out}", "--dataset={no}: no such folder. Expected a folder wi"),
        (
            "evaluate --reference={no} --prediction={tmp} -o {out}",
            "--reference={no}: no such folder. Expected a folder in the MSSEG-2 layout",
        ),
        (
            "evaluate --reference={tmp} --prediction={no} -o {out}",
            "--prediction={no}: no such folder. Expected a folder of masks",
        ),
        (
            "evaluate --reference={tmp} --prediction={tmp} --probability={no} -o {out}",
            "--probability={no}: no such folder. Expected a folder of probability maps",
        ),
        (
            "train --config=msseg2 --config.data.root={no} --workdir={out}",
            "config.data.root={no}: no such folder. Expected a folder in the MSSEG-2 layout",
        ),
    ],
)
def test_a_missing_folder_is_reported_with_its_own_flag_only(capsys, tmp_path, arguments, message):
    places = {"no": tmp_path / "no", "out": tmp_path / "out", "tmp": tmp_path}
    command, *flags = (argument.format(**places) for argument in arguments.split(" "))
    assert main([command, *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"msseg {command}: {message.format(**places)}")
    others = {"--dataset", "--reference", "--prediction", "--probability", "config.data.root"}
    assert not any(flag in error for flag in others - {message.partition("=")[0]})
    assert not (tmp_path / "out").exists()


def test_the_value_of_an_override_may_follow_after_a_space(capsys):
    assert main(["describe", "--config", "msseg2", "--config.model.targets", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"parameters: {40465 - 4 * 6}\n")


def test_a_training_that_is_stopped_by_a_signal_exits_with_75(monkeypatch, tmp_path, capsys):
    def stop(*_):
        raise Stopped("stored step 3")

    monkeypatch.setattr("msseg_jax.cli.train.run_experiment", stop)
    assert experiment.run_experiment is not stop
    flags = ["--config=msseg2", f"--workdir={tmp_path}"]
    assert run_command("train", flags, "launch.py") == EXIT_STATUS
    assert "stored step 3" in capsys.readouterr().out


def test_a_command_can_run_outside_the_main_thread():
    """Run a command in another thread, as a server does. Signal handlers cannot be set there."""
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(main(["describe", "--config=demo"])))
    thread.start()
    thread.join()
    assert statuses == [0]


def shell(command: str) -> subprocess.CompletedProcess:
    """Run a command line in bash, with msseg as `$msseg`."""
    environment = os.environ | {"msseg": f"{sys.executable} -m msseg_jax"}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("arguments", ["export --show", "describe --config=demo", "--version"])
def test_closing_the_output_early_ends_a_command_quietly_with_141(arguments):
    # `true` reads nothing, and the pipe is closed when the command begins to write.
    done = shell(f"(sleep 0.2; $msseg {arguments}) | true; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.stdout == "141\n"


def test_the_lines_that_are_read_before_the_output_is_closed_are_complete():
    done = shell("$msseg export --show | head -n 1")
    assert done.stderr == ""
    assert done.stdout.startswith("file ")
    assert done.stdout.endswith("written by msseg_jax 0.1.0\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        ("--help", "msseg"), ("--version", "msseg"), ("predict --help", "msseg predict"),
        ("export --show", "msseg export"), ("describe --config=demo", "msseg describe"),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_written_gives_one_line_and_status_1(arguments, program):
    done = shell(f"$msseg {arguments} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        f"{program}: the output cannot be written: [Errno 28] No space left on device\n"
    )


def test_an_error_is_no_second_error_if_nobody_reads_it():
    done = shell("$msseg describe --config=nope 2> /dev/full")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict -o a.nii.gz --threshold=0.3 --threshold=0.4", "--threshold: is given twice."),
        ("predict --output a --dataset b -o c", "-o/--output: is given twice. Give it once."),
        ("predict -t1 a --time01 b -t2 c -o d", "-t1/--time01: is given twice. Give it once."),
        ("predict --dataset a --output=", "-o/--output: the value is empty. Expected OUT."),
        ("prepare --dataset= -o a", "--dataset: the value is empty. Expected ROOT."),
        ("predict --dataset a -o b --model=", "--model: the value is empty. Expected MODEL."),
        ("train --config=demo --workdir=", "--workdir: the value is empty. Expected DIR."),
    ],
)
def test_a_flag_has_one_value_that_is_not_empty(capsys, arguments, message):
    command, *flags = arguments.split(" ")
    with pytest.raises(SystemExit, match="2"):
        main([command, *flags])
    assert capsys.readouterr().err.startswith(f"msseg {command}: error: {message}")


def test_flags_that_may_be_repeated_are_collected_and_a_text_may_be_empty():
    flags = parse("export", ["--model=a", "--model=b", "-o", "c", "--description="], "msseg export")
    assert [path.name for path in flags.model] == ["a", "b"]
    assert flags.description == ""
    assert parse("predict", ["--dataset=a", "-o", "."], "msseg predict").output == Path()


def test_a_field_of_the_configuration_is_given_once(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["describe", "--config=demo", "--config.seed=1", "--config.seed", "2"])
    assert "config.seed is given twice; expected one value." in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["-output=new.nii.gz", "-output", "-mask=x", "-report"])
def test_a_long_flag_with_one_dash_is_refused_with_the_right_one(capsys, argument):
    with pytest.raises(SystemExit) as ended:
        main(["predict", "-t1", "a.nii.gz", "-t2", "b.nii.gz", argument])
    assert ended.value.code == 2
    assert f"Did you mean -{argument.partition('=')[0]}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["first.nii.gz", "second.nii.gz"], "Give the scans as -t1 FIRST -t2 SECOND"),
        (["--t1", "first.nii.gz", "--t2", "second.nii.gz"], "Did you mean -t1?"),
    ],
)
def test_scans_in_the_spelling_of_other_programs_get_advice(capsys, arguments, advice):
    with pytest.raises(SystemExit):
        main(["predict", *arguments, "-o", "new.nii.gz"])
    assert advice in capsys.readouterr().err


def test_a_warning_is_printed_once_in_a_process(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    show_warnings()
    for name in ("a.nii", "b.nii", "a.nii"):
        logging.getLogger("msseg_jax.volumes").warning("%s: is odd", name)
    assert capsys.readouterr().err == "WARNING: a.nii: is odd\nWARNING: b.nii: is odd\n"
