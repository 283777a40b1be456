"""Model files predict exactly as the runs; predict, evaluate and export accept both."""

import re
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli.flags.predict import RELEASED
from msseg_jax.cli.main import main
from msseg_jax.models import networks, released
from msseg_jax.models.agreed_options import agreed_options
from msseg_jax.models.folds import Folds, runs_of
from msseg_jax.models.model_file import About, read_model_file
from msseg_jax.report import evaluation_folder
from msseg_jax.system.errors import InputError
from msseg_jax.volumes import layout
from tests.support.runs import models, save_run


def export(flags):
    return main(["export", *flags])


def predict(flags):
    return main(["predict", *flags])


def evaluate(flags):
    return main(["evaluate", *flags])


@pytest.fixture
def shipped(runs, tmp_path, monkeypatch):
    """Write a model file of all three runs, and use it in place of the released weights."""
    path = tmp_path / "released.safetensors"
    assert export([*models(runs), f"--output={path}", "--name=Open", "--version=1.0"]) == 0
    monkeypatch.setattr(released, "_FILE", path)
    return path


def predicted(paths, flags, tmp_path, *more):
    """Return the mask and the maps of a pair, as predicted with some models."""
    maps = [tmp_path / f"{name}.nii.gz" for name in ("probability", "uncertainty")]
    outputs = [f"--{path.name.removesuffix('.nii.gz')}={path}" for path in maps]
    if len(paths) == 1 and paths[0].is_dir():
        outputs = outputs[:1]
    assert predict([*models(paths), *flags, *outputs, *more]) == 0
    written = [tmp_path / "new.nii.gz", *maps[: len(outputs)]]
    return [np.asarray(nib.load(path).dataobj) for path in written]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.ptp(a) > 0


def test_an_exported_run_predicts_exactly_as_the_run(runs, flags, tmp_path):
    file = tmp_path / "one.safetensors"
    assert export([*models(runs[:1]), f"--output={file}"]) == 0
    mask, probability = predicted(runs[:1], flags, tmp_path)
    path = tmp_path / "again.nii.gz"
    assert predict([*models([file]), *flags, f"--probability={path}"]) == 0
    again = [np.asarray(nib.load(p).dataobj) for p in (tmp_path / "new.nii.gz", path)]
    assert_equal(again, [mask, probability])
    np.testing.assert_array_equal(mask, probability > np.float32(0.3))  # threshold of the run


def test_a_file_of_several_networks_predicts_exactly_as_the_ensemble(
    runs, flags, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "all.safetensors"
    assert export([*models(runs), f"--output={file}", "--name=All", "--version=2"]) == 0
    together = predicted(runs, flags, tmp_path)
    reads = []

    def count(path):
        reads.append(path)
        return read_model_file(path)

    monkeypatch.setattr(networks, "read_model_file", count)
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert_equal(predicted([file], flags, tmp_path, f"--report={page}"), together)
    assert reads == [file]  # only once for all networks
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f'weights: {file}, "All 2", 3 networks; for research, not for clinical use'
    html = page.read_text()
    for k in range(3):  # the details are in the report
        stated = f"All 2 ({file}), network {k} of 3 (numbered from 0), last checkpoint (step 4)"
        assert stated in html
    # Files and runs can be mixed.
    pair = tmp_path / "pair.safetensors"
    assert export([*models(runs[:2]), f"--output={pair}"]) == 0
    assert_equal(predicted([pair, runs[2]], flags, tmp_path), together)


def test_all_runs_of_a_cross_validation_are_exported(small_config, tmp_path):
    folds = Folds(tmp_path / "cv")
    for fold in range(2):
        save_run(folds.run(fold), small_config, seed=fold, middle=40.0 + fold)
    folds.save([["patient_0"], ["patient_1"]])
    file = tmp_path / "cv.safetensors"
    assert export([f"--model={folds.path}", f"--output={file}"]) == 0
    landmarks = [network.preprocessing.landmarks[1] for network in read_model_file(file).networks]
    assert landmarks == [40, 41]


def test_texts_are_kept_and_can_be_changed_without_changing_the_weights(runs, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    texts = About(
        name="A", version="1", licence="CC0", attribution="nobody", training_data="phantoms",
        description="two\nlines",
    )  # fmt: skip
    given = [f"--{name}={text}" for name, text in texts]
    assert export([*models(runs[:2]), f"--output={first}", *given]) == 0
    assert read_model_file(first).about == texts
    flags = [f"--model={first}", f"--output={second}", "--version=1.1", "--description="]
    assert export(flags) == 0
    before, after = read_model_file(first), read_model_file(second)
    assert after.about == texts.model_copy(update={"version": "1.1", "description": ""})
    for one, other in zip(before.networks, after.networks, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
        assert (one.config, one.preprocessing) == (other.config, other.preprocessing)


def test_a_merged_file_keeps_licence_and_attribution_of_its_sources(runs, tmp_path, capsys):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    merged = tmp_path / "merged.safetensors"
    terms = ["--licence=CC-BY-4.0", "--training_data=phantoms", "--version=7"]
    assert export([f"--model={runs[0]}", f"--output={one}", "--attribution=A", *terms]) == 0
    assert export([f"--model={runs[1]}", f"--output={two}", "--attribution=B", *terms]) == 0
    assert export([*models([one, runs[2]]), f"--output={merged}"]) == 0
    # The version is not kept, nor the training data, which hold for one of the networks only.
    assert read_model_file(merged).about == About(
        name="merged", licence="CC-BY-4.0", attribution="A"
    )
    flags = [*models([one, two]), f"--output={merged}", "--overwrite"]
    capsys.readouterr()
    assert export(flags) == 1
    message = (
        "--attribution: .* different texts .'A'; 'B'.. Expected one text for all. "
        "Give --attribution"
    )
    assert re.search(message, capsys.readouterr().err)
    assert len(read_model_file(merged).networks) == 2  # the file is unchanged
    assert export([*flags, "--attribution=A and B"]) == 0
    assert read_model_file(merged).about.attribution == "A and B"
    assert export([*flags, "--attribution=Me"]) == 0
    assert read_model_file(merged).about.attribution == "Me\nA\nB"


def test_networks_with_different_thresholds_need_an_explicit_one(
    runs, small_config, flags, tmp_path, capsys
):
    small_config.predict.threshold = 0.4
    other = save_run(tmp_path / "other", small_config, seed=3)
    file = tmp_path / "all.safetensors"
    mixed = [*models([runs[0], other]), f"--output={file}"]
    assert export(mixed) == 1
    error = capsys.readouterr().err
    assert re.search(
        "threshold: .*one has 0.3, .*other has 0.4. .*Give a value for threshold", error
    )
    assert not file.exists()
    assert export([*mixed, "--threshold=0.35", "--min_lesion_mm3=2", "--min_peak=0.4"]) == 0
    predicts = [network.config.predict for network in read_model_file(file).networks]
    assert [(p.threshold, p.min_lesion_mm3, p.min_peak, p.overlap) for p in predicts] == [
        (0.35, 2, 0.4, 2)
    ] * 2
    assert [p.flips for p in predicts] == [1, 1]
    mask, probability, _ = predicted([file], flags, tmp_path, "--min_lesion_mm3=0")
    np.testing.assert_array_equal(mask == 1, probability > np.float32(0.35))


def test_a_file_is_replaced_only_with_overwrite(runs, tmp_path, capsys):
    file = tmp_path / "one.safetensors"
    flags = [f"--model={runs[0]}", f"--output={file}"]
    assert export(flags) == 0
    before = file.read_bytes()
    assert export([*flags, "--version=2"]) == 1
    message = f"--output={file}: the file exists. Choose another name, or replace it with --over"
    assert message in capsys.readouterr().err
    assert file.read_bytes() == before
    assert export([*flags, "--version=2", "--overwrite"]) == 0
    assert read_model_file(file).about.version == "2"
    # The input may be replaced by the output.
    again = [f"--model={file}", f"--output={file}", "--overwrite", "--licence=CC0"]
    assert export(again) == 0
    assert read_model_file(file).about == About(name="one", version="2", licence="CC0")


def test_show_prints_the_description_of_a_file(runs, shipped, capsys):
    texts = ["--licence=CC0", "--attribution=nobody", "--training_data=none", "--description=a\nb"]
    assert export([f"--model={shipped}", f"--output={shipped}", "--overwrite", *texts]) == 0
    *written, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"model file: {re.escape(str(shipped))} \(3 networks\), [\d.]+ s", last)
    assert export(["--show", str(shipped)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines() == written
    assert export(["--show"]) == 0
    assert capsys.readouterr().out == shown  # the file stands in for the released weights
    lines = [re.split(" {2,}", line) for line in shown.splitlines()]
    assert lines[0][0] == "file"
    assert lines[0][1].startswith(f"{shipped}, 0.0")
    assert lines[0][1].endswith("written by msseg_jax 0.1.0")
    assert lines[1:9] == [
        ["name", "Open"], ["version", "1.0"], ["licence", "CC0"], ["attribution", "nobody"],
        ["training data", "none"], ["description", "a"], ["", "b"],
        ["networks", "3 (their probabilities are averaged)"],
    ]  # fmt: skip
    second = lines[lines.index(["network 1", "last checkpoint, step 4"]) :][:9]
    count = sum(
        leaf.size
        for leaf in jax.tree.leaves(read_model_file(shipped).networks[1].variables["params"])
    )
    assert second[1:] == [
        ["parameters", str(count)], ["widths", "3, 2"],
        ["output maps", "2: consensus, expert 1"], ["voxels", "1 mm"],
        ["patches", "8 voxels along each side"], ["landmarks", "1 % 0, 50 % 30, 99 % 100"],
        ["deviation", "5, largest among the training visits"],
        ["prediction", "threshold 0.3, smallest lesion 0 mm3, overlap 2 voxels"],
    ]  # fmt: skip


def test_show_refuses_a_folder_and_tells_how_to_export_it(runs, small_config, tmp_path, capsys):
    folds = Folds(tmp_path / "cv")
    for fold in range(2):
        save_run(folds.run(fold), small_config, seed=fold)
    folds.save([["patient_0"], ["patient_1"]])
    for folder in (runs[0], folds.path):
        assert export([f"--show={folder}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"msseg export: {folder}: is a folder; expected a mod")
        # The command that the message suggests works.
        (model,) = re.findall("--model=[^ ]+", error)
        assert export([model, f"--output={tmp_path / folder.name}.safetensors"]) == 0
        assert capsys.readouterr().out.startswith("file ")


def test_ctrl_c_gives_one_line(monkeypatch, capsys):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("msseg_jax.cli.export.read_model_file", interrupt)
    assert export(["--show=a.safetensors"]) == 1
    assert capsys.readouterr().err.startswith("msseg export: Interrupted. Run the same command")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "expected --model and --output to write a file, or --show"),
        (["--model=a"], "expected --model and --output"),
        (["--output=a"], "expected --model and --output"),
        (["--show=a", "--model=b"], "--show excludes --model. Give one or the other"),
        (["--show=a", "--threshold=0", "--min_peak=0"], "excludes --threshold, --min_peak. Give"),
        (
            ["--model=a", "--output=b", "--threshold=1"],
            "--threshold: 1 is out of range. Expected a number, 0 or",
        ),
        (
            ["--model=a", "--output=b", "--min_lesion_mm3=nan"],
            "mm3: nan is out of range. Expected a number, 0 or more",
        ),
        (["--mod=a", "--output=b"], "unknown flag --mod=a. Did you mean --model?"),
    ],
)
def test_wrong_flags_exit_with_2(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        export(flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model={tmp}/nowhere", "--output={tmp}/a.safetensors"],
            "nowhere: no such file or folder. --model and config.init expect",
        ),
        (
            ["--model={tmp}/no.safetensors", "--output={tmp}/a.safetensors"],
            "no such file; expected",
        ),
        (
            ["--model={run}", "--output={tmp}/a.npz"],
            "a.npz: expected a name that ends in",
        ),
        (
            ["--model={run}", "--output={run}/config.json/a.safetensors"],
            "a.safetensors: cannot be written",
        ),
        (["--model={run}", "--model={run}", "--output={tmp}/a.safetensors"], "is given twice"),
        (
            ["--model={run}", "--output={tmp}/a.safetensors", "--name=a\nb"],
            "about.name: the text 'a",
        ),
        (["--show={tmp}/nowhere"], "nowhere: no such file; expected a model file"),
    ],
)
def test_bad_input_gives_one_message_and_writes_nothing(runs, tmp_path, capsys, flags, message):
    given = [flag.format(tmp=tmp_path, run=runs[0]) for flag in flags]
    assert export(given) == 1
    error = capsys.readouterr().err
    assert error.startswith("msseg export: ")
    assert message in error
    assert not list(tmp_path.glob("a.*"))


# ------------------------------------------------------------------------- the released weights


def test_the_released_weights_are_the_default_and_the_first_line_names_them(
    runs, shipped, flags, tmp_path, capsys
):
    together = predicted(runs, flags, tmp_path)
    apart, page = tmp_path / "uncertainty.nii.gz", tmp_path / "page.html"
    capsys.readouterr()
    probability = tmp_path / "probability.nii.gz"
    outputs = [f"--probability={probability}", f"--uncertainty={apart}", f"--report={page}"]
    assert predict([*flags, *outputs]) == 0
    first = 'weights: released, "Open 1.0", 3 networks; for research, not for clinical use'
    assert capsys.readouterr().out.splitlines()[0] == first
    written = [tmp_path / "new.nii.gz", probability, apart]
    assert_equal([np.asarray(nib.load(path).dataobj) for path in written], together)
    assert f"Open 1.0 ({shipped}), network 2 of 3 (numbered from 0)" in page.read_text()
    assert predict(["--model=weights", *flags]) == 0
    assert capsys.readouterr().out.splitlines()[0] == first


def test_uncertainty_of_a_single_network_is_refused(runs, flags, tmp_path, capsys):
    file = tmp_path / "one.safetensors"
    assert export([f"--model={runs[0]}", f"--output={file}"]) == 0
    apart = tmp_path / "apart.nii.gz"
    assert predict([f"--model={file}", *flags, f"--uncertainty={apart}"]) == 1
    assert f"one ({file}) is only one network. Expected" in capsys.readouterr().err
    assert not apart.exists()


def test_missing_released_weights_are_reported(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(released, "_FILE", tmp_path / "nowhere.safetensors")
    for command, given in ((predict, flags), (export, ["--show"])):
        assert command(given) == 1
        error = capsys.readouterr().err
        assert "nowhere.safetensors: no such file; expected the released weights, which" in error
    assert not (tmp_path / "new.nii.gz").exists()


def test_the_released_weights_are_installed_and_the_help_states_their_options():
    file = read_model_file(released.released())
    assert file.about.title
    assert file.about.licence
    options = agreed_options(file.networks).model_dump()
    assert options == {**RELEASED, "tile": None}


def test_an_evaluation_uses_the_preprocessing_of_every_network_of_a_file(
    runs, shipped, patients_root, tmp_path, monkeypatch, capsys
):
    given = {}

    def note(page, evaluation, fitted):
        given.update(fitted)

    monkeypatch.setattr(evaluation_folder, "write_evaluation_report", note)
    masks = tmp_path / "masks"
    masks.mkdir()
    for k in range(4):
        reference = patients_root / f"patient_{k}" / layout.CONSENSUS
        (masks / f"patient_{k}.nii.gz").write_bytes(reference.read_bytes())
    output = tmp_path / "out"
    flags = [f"--reference={patients_root}", f"--prediction={masks}", f"--output={output}"]
    assert evaluate([*flags, f"--model={shipped}"]) == 0
    from_file = dict(given)
    given.clear()
    assert evaluate([*flags, *models(runs)]) == 0
    assert from_file == given
    assert [one.landmarks[1] for one in given["patient_0"]] == [50, 30, 50]
    given.clear()
    assert evaluate([*flags, "--model=weights"]) == 0
    assert from_file == given
    assert evaluate([*flags, f"--model={tmp_path / 'no.safetensors'}"]) == 1
    assert "no.safetensors: no such file; expected a model file" in capsys.readouterr().err


def test_the_name_weights_stands_for_the_file_of_the_released_weights(shipped, runs):
    assert runs_of([Path("weights"), runs[0]]) == [shipped, runs[0]]
    with pytest.raises(InputError, match="is given twice"):
        runs_of([Path("weights"), shipped])
