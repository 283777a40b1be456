"""Warm starts: what a run takes from a trained network, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from msseg_jax.cli.main import main
from msseg_jax.configuration.files import shipped, typed
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.models import networks, released
from msseg_jax.models.folds import Folds
from msseg_jax.models.model_file import read_model_file
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.errors import InputError
from msseg_jax.training import cross_validation, experiment, held_out
from msseg_jax.training.cross_validation import cross_validate
from msseg_jax.training.experiment import run_experiment
from msseg_jax.training.warm_start import begin_with, initial_network
from tests.support import tiny
from tests.support.launching import Launch
from tests.support.patients import make_patients
from tests.support.runs import assert_trees_equal, save_run, stored, train_run
from tests.support.session import DATA

FILE = DATA / "model_v1.safetensors"  # two networks with random weights


@pytest.fixture
def file(tmp_path):
    """Copy the model file, so that a test can move it."""
    return Path(shutil.copy(FILE, tmp_path / "two.safetensors"))


def one_step_from(file) -> ConfigDict:
    """Return a configuration of one step, so small that the network does not change at all."""
    config = tiny.get_config()
    config.data.percentiles = (1, 50, 99)
    config.init = str(file)
    config.train.max_steps = 1
    config.train.learning_rate = 1e-30
    config.model.norm_momentum = 1 - 1e-12
    return config


@pytest.fixture
def config(patients_root, file):
    config = one_step_from(file)
    config.data.root = str(patients_root)
    return config


def preprocessing_of(path):
    return Preprocessing.load(RunFolder(path).preprocessing_file)


@pytest.mark.parametrize("number", [0, 1])
def test_a_run_begins_with_the_parameters_statistics_and_landmarks_of_the_network(
    config, file, tmp_path, number, capsys
):
    config.init_network = number
    train_run(config, RunFolder(tmp_path / "new"))
    network = read_model_file(file).networks[number]
    assert f"starting with the weights of {network}\n" in capsys.readouterr().out
    step, state = stored(tmp_path / "new")
    assert step == 1
    assert_trees_equal(state["model"], network.variables)
    assert preprocessing_of(tmp_path / "new") == network.preprocessing
    moments = [leaf for leaf in jax.tree.leaves(state["optimiser"]) if np.ndim(leaf)]
    assert max(np.abs(leaf).max() for leaf in moments) > 0  # Adam took a step
    counts = [int(leaf) for leaf in jax.tree.leaves(state["optimiser"]) if not np.ndim(leaf)]
    assert set(counts) == {1}


def test_running_statistics_continue_from_those_of_the_network(config, file, tmp_path):
    """Compare two momenta: one step moves the statistics by a tenth or by half of the way."""
    config.model.norm_momentum = 0.9
    train_run(config, RunFolder(tmp_path / "tenth"))
    config.model.norm_momentum = 0.5
    train_run(config, RunFolder(tmp_path / "half"))
    start = read_model_file(file).networks[0].variables["batch_stats"]
    tenth, half = (stored(tmp_path / name)[1]["model"]["batch_stats"] for name in ("tenth", "half"))
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a + 5 * (b - a), c, atol=1e-4),
        start, tenth, half,
    )  # fmt: skip
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, tenth)
    assert max(jax.tree.leaves(moved)) > 0.01


@pytest.fixture(scope="module")
def folds(tmp_path_factory) -> Folds:
    """Return a cross-validation's folder, with a run for each network of the file."""
    folder = tmp_path_factory.mktemp("folds")
    config, folds = one_step_from(FILE), Folds(folder / "cv")
    config.data.root = str(make_patients(folder / "patients"))
    for fold in range(2):
        config.init_network = fold
        train_run(config, RunFolder(folds.run(fold)))
    folds.save([["patient_0"], ["patient_1"]])
    return folds


@pytest.mark.parametrize("what", ["run", "cross-validation", "released"])
def test_the_network_may_come_from_a_run_a_fold_or_the_released_weights(
    config, file, folds, tmp_path, monkeypatch, what
):
    monkeypatch.setattr(released, "_FILE", file)
    init = {"run": folds.run(1), "cross-validation": folds.path, "released": "weights"}
    config.init, config.init_network = str(init[what]), int(what != "run")
    train_run(config, RunFolder(tmp_path / "new"))
    network = read_model_file(file).networks[1]
    assert_trees_equal(stored(tmp_path / "new")[1]["model"], network.variables)
    assert preprocessing_of(tmp_path / "new") == network.preprocessing
    assert network.preprocessing.landmarks[1] == 60


@pytest.mark.parametrize(
    ("targets", "target_set", "common"),
    [(1, "raters", 1), (1, "changes", 1), (3, "changes", 1), (4, "raters", 2)],
)
def test_only_maps_that_a_network_does_not_have_start_untrained(
    config, file, targets, target_set, common
):
    config.model.targets = targets
    config.model.target_set = target_set
    config.model.initial_probability = 0.25
    network = read_model_file(file).networks[0]
    model = begin_with(typed(config), network)
    output = model["params"]["refinement"].pop("output")
    trained = read_model_file(file).networks[0].variables
    theirs = trained["params"]["refinement"].pop("output")
    assert_trees_equal(model, trained)
    assert theirs["kernel"].any()
    for name in ("kernel", "bias"):
        assert output[name].shape[-1] == targets
        np.testing.assert_array_equal(output[name][..., :common], theirs[name][..., :common])
    assert not output["kernel"][..., common:].any()
    np.testing.assert_allclose(output["bias"][common:], np.log(0.25 / 0.75), rtol=1e-6)


@pytest.mark.parametrize("more", [[], ["enlarging"]])
def test_a_run_names_the_maps_that_start_untrained(config, file, tmp_path, capsys, more):
    config.model.targets = 1 + len(more)
    config.model.target_set = "changes"
    for truth in Path(config.data.root).glob("*/ground_truth.nii.gz"):
        for name in more:
            shutil.copy(truth, truth.with_name(f"{name}.nii.gz"))
    train_run(config, RunFolder(tmp_path / "new"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "untrained" in line]
    assert lines == [f"these maps start untrained: {name}" for name in more]


def test_patches_may_have_another_size(config, tmp_path):
    config.data.patch_size = 10
    train_run(config, RunFolder(tmp_path / "new"))
    fitted = preprocessing_of(tmp_path / "new")
    assert fitted.settings.patch_size == 10
    assert fitted.landmarks == (0, 40, 100)


@pytest.mark.parametrize("work", [run_experiment, cross_validate])
def test_each_run_reads_the_model_file_once(config, tmp_path, monkeypatch, work):
    reads = []

    def count(path):
        reads.append(path)
        return read_model_file(path)

    monkeypatch.setattr(networks, "read_model_file", count)
    monkeypatch.setattr(held_out, "print_scores", lambda *_: None)
    if work is cross_validate:
        config.data.validation_patients, config.data.folds = 0, 2
    work(typed(config), tmp_path / "new")
    assert reads == [Path(config.init)] * (2 if work is cross_validate else 1)


def test_a_run_continues_from_its_own_state_without_the_network(config, file, tmp_path, capsys):
    config.train.learning_rate = 0.004
    config.train.max_steps = 6
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    train_run(config, whole)
    config.train.max_steps = 3
    train_run(config, parts)
    config.train.max_steps = 6
    file.rename(tmp_path / "moved.safetensors")
    capsys.readouterr()
    train_run(config, parts)
    output = capsys.readouterr().out
    assert "continuing after step 3" in output
    assert "starting with the weights of" not in output
    assert_trees_equal(stored(whole.path), stored(parts.path))
    assert preprocessing_of(parts.path).landmarks == (0, 40, 100)
    for run in (whole, parts):
        record = json.loads(run.initial_file.read_text())
        assert record["network"].startswith(f"made up 1.0 ({file}), network 0")
    # config.init must stay as it was when the run started.
    config.init = str(tmp_path / "moved.safetensors")
    message = r"config.init is .*moved.safe.*, but the run has .*two.safe"
    with pytest.raises(InputError, match=message):
        train_run(config, parts)
    config.init = ""
    with pytest.raises(InputError, match=r"config.init is , but the run has .*two.safetensors"):
        train_run(config, parts)


def test_a_run_with_changed_patients_is_refused(config, patients_root, tmp_path):
    """Check that the split is compared, although the preprocessing is not fitted."""
    run = RunFolder(tmp_path / "new")
    train_run(config, run)
    (patients_root / "patient_0").rename(patients_root / "patient_9")
    with pytest.raises(InputError, match="started with other data than"):
        train_run(config, run)


def test_the_record_of_the_network_is_removed_if_a_run_starts_over_without_it(config, tmp_path):
    run = RunFolder(tmp_path / "new")
    run.create_or_continue(typed(config))
    run.initial_file.write_text("{}")
    config.init = ""
    train_run(config, run)
    assert not run.initial_file.exists()


def test_an_exported_run_keeps_the_licence_of_the_network_it_started_from(config, tmp_path):
    train_run(config, RunFolder(tmp_path / "new"))
    path = tmp_path / "tuned.safetensors"
    assert main(["export", f"--model={tmp_path / 'new'}", f"--output={path}", "--version=2"]) == 0
    about = read_model_file(path).about
    assert (about.title, about.licence, about.attribution) == ("tuned 2", "none", "nobody")
    RunFolder(tmp_path / "new").initial_file.write_text('{"about": {"title": "?"}}')
    message = r"initial.json.network is missing"
    with pytest.raises(InputError, match=message):
        trained_networks(tmp_path / "new")


def test_every_field_that_differs_is_named_with_its_expected_value(
    config, file, tmp_path, monkeypatch
):
    for module in (experiment, cross_validation):
        for name in ("check_patients", "use_phantoms"):
            monkeypatch.setattr(module, name, lambda *_: pytest.fail("work has started"))
    config.model.targets = 5  # may differ
    config.model.widths = (4, 2)
    config.data.spacing_mm = 0.8
    config.data.percentiles = (1, 99)
    config.model.dropout_rate = 0.3  # may differ
    config.model.initial_probability = 0.1  # may differ
    for work in (run_experiment, cross_validate):
        if work is cross_validate:
            config.data.validation_patients, config.data.folds = 0, 2
        with pytest.raises(InputError) as error:
            work(typed(config), tmp_path / "new")
        lines = str(error.value).splitlines()
        assert lines[0] == f"config.init={file} does not fit this configuration:"
        assert sorted(lines[1:-1]) == [
            "config.data.percentiles is (1.0, 99.0); expected (1.0, 50.0, 99.0)",
            "config.data.spacing_mm is 0.8; expected 1.0",
            "config.model.widths is (4, 2); expected (3, 2)",
        ]
        assert f"those of made up 1.0 ({file}), network 0 of 2 (numbered from 0)" in lines[-1]
        assert "--config=changes for the released weights" in lines[-1]
        assert "--config.model.widths='(3,2)'" in lines[-1]
        assert "--config.data.percentiles='(1,50,99)'" in lines[-1]
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "field",
    [
        "model.norm_epsilon",
        "model.targets",
        "model.node_convolutions",
        "data.percentiles",
        "predict.min_lesion_mm3",
    ],
)
def test_a_network_with_an_incomplete_configuration_is_refused(config, tmp_path, field):
    run = RunFolder(save_run(tmp_path / "old", config))
    document = json.loads(run.config_file.read_text())
    section, name = field.split(".")
    del document[section][name]
    run.config_file.write_text(json.dumps(document))
    config.init = str(run.path)
    message = f"config.json: config.{field} is missing"
    with pytest.raises(InputError, match=message):
        initial_network(typed(config), RunFolder(tmp_path / "new"))


def test_the_finetune_configuration_fits_every_released_network(tmp_path):
    config = shipped("finetune")
    networks = read_model_file(released.released()).networks
    for number, network in enumerate(networks):
        config.init_network = number
        typed(config)
        assert str(initial_network(typed(config), RunFolder(tmp_path / "new"))) == str(network)
        for name in ("threshold", "min_lesion_mm3", "min_peak"):
            assert config.predict[name] == getattr(network.config.predict, name), name


@pytest.mark.parametrize(
    ("init", "number", "message"),
    [
        ("{file}", 2, "config.init_network is 2, .* in config.init=.* is 2. Use 0 to 1."),
        (
            "{tmp}/nowhere",
            0,
            "nowhere: no such file or folder. --model and config.init expect 'weights'",
        ),
        (
            "{tmp}/nowhere.safetensors",
            0,
            "nowhere.safetensors: no such file; expected a model file",
        ),
        ("weights", 0, "no such file; expected the released weights"),
    ],
)
def test_a_network_that_does_not_exist_is_refused(
    config, file, tmp_path, monkeypatch, init, number, message
):
    monkeypatch.setattr(released, "_FILE", tmp_path / "none.safetensors")
    config.init, config.init_network = init.format(file=file, tmp=tmp_path), number
    with pytest.raises(InputError, match=message):
        run_experiment(typed(config), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("init", "number", "message"),
    [
        ("weights", -1, "config.init_network is -1; expected 0 or more"),
        ("", 1, "config.init_network is 1; expected 0, because config.init is empty"),
    ],
)
def test_invalid_fields_are_refused(small_config, init, number, message):
    small_config.init, small_config.init_network = init, number
    with pytest.raises(InputError, match=message):
        typed(small_config)


def test_every_fold_of_a_cross_validation_starts_from_the_network(config, file, tmp_path):
    config.data.validation_patients, config.data.folds = 0, 2
    config.init_network = 1
    cross_validate(typed(config), tmp_path / "cv")
    network = read_model_file(file).networks[1]
    for fold in range(2):
        run = Folds(tmp_path / "cv").run(fold)
        assert_trees_equal(stored(run)[1]["model"], network.variables)
        assert preprocessing_of(run) == network.preprocessing
    evaluation = json.loads((tmp_path / "cv" / "evaluation" / "evaluation.json").read_text())
    assert {row["patient"] for row in evaluation["scores"]} == {f"patient_{k}" for k in range(4)}


def test_the_command_line_can_request_a_warm_start(config, file, patients_root, tmp_path):
    """Check also that the trained run predicts."""
    flags = [
        f"--config.init={file}", "--config.init_network=1",
        "--config.data.percentiles=(1,50,99)", "--config.train.max_steps=2",
    ]  # fmt: skip
    with Launch(patients_root) as launch:
        status, output = launch.run(tmp_path / "new", *flags)
    assert status == 0, output
    assert (
        f"starting with the weights of made up 1.0 ({file}), network 1 of 2 (numbered from 0)"
        in output
    )
    assert "step 2/2" in output
    assert (tmp_path / "new" / "evaluation" / "report.html").is_file()
