"""`msseg predict` for pairs on a common grid: tiles, masks, reports, and refused input."""

import re
import subprocess
import sys

import jax
import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli import prediction
from msseg_jax.cli.main import main
from msseg_jax.configuration.options import Options
from msseg_jax.data import preprocess
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.forward import compile_forward, segment_volume
from msseg_jax.inference.new_lesions import lesion_mask
from msseg_jax.inference.predictor import Predictor
from msseg_jax.inference.tiles import Tiling
from msseg_jax.models.checkpoints import Checkpoints, Progress
from msseg_jax.models.networks import trained_networks
from msseg_jax.network.model import SiameseMPUNet, initial_variables
from msseg_jax.system.errors import InputError
from msseg_jax.volumes import layout
from msseg_jax.volumes.pair import read_pair
from tests.support.patients import SHAPE, SPACING_MM, save_nifti
from tests.support.runs import build_model, save_run, with_random_output


def predict(flags):
    return main(["predict", *flags])


@pytest.fixture
def run(small_config, tmp_path):
    """Return the folder of a run with an untrained network."""
    small_config.predict.threshold = 0.0  # every brain voxel is positive
    return save_run(tmp_path / "run", small_config)


@pytest.fixture
def pair_flags(run, patients_root, tmp_path):
    patient = patients_root / "patient_0"
    return [
        f"--model={run}",
        "-t1", str(patient / layout.TIME01),
        "-t2", str(patient / layout.TIME02),
        f"--mask={patient / layout.BRAIN_MASK}",
        "-o", str(tmp_path / "new.nii.gz"),
    ]  # fmt: skip


def stand_in(value_of):
    """Return a function that stands in for a network and sees only the second visit."""
    return lambda time01, time02: value_of(time02[..., 0])[:, None]


def test_tiles_give_each_brain_voxel_its_value_and_0_outside():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 13, 14, 20)).astype(np.float32)
    brain = generator.random((13, 14, 20)) < 0.7
    (identity,) = segment_volume(stand_in(lambda x: x), images, brain, Tiling((8, 8, 8), 3, 4))
    np.testing.assert_allclose(identity, images[1] * brain, atol=1e-6)


def test_tiles_of_several_maps_give_each_map():
    images = np.random.default_rng(0).normal(size=(2, 13, 14, 20)).astype(np.float32)
    brain = np.ones((13, 14, 20), bool)

    def network(time01, time02):
        return np.stack([time02[..., 0], 2 * time01[..., 0], -time02[..., 0]], axis=1)

    maps = segment_volume(network, images, brain, Tiling((8, 8, 8), 3, 4), map_count=3)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, [images[1], 2 * images[0], -images[1]], atol=1e-6)


def test_tiles_without_brain_are_not_computed():
    calls = []

    def count(x):
        calls.append(x.shape)
        return x

    brain = np.zeros((8, 8, 64), bool)
    brain[:, :, :8] = True
    images = np.zeros((2, *brain.shape), np.float32)
    segment_volume(stand_in(count), images, brain, Tiling((8, 8, 8), 0, 3))
    assert calls == [(3, 8, 8, 8)]  # one of eight tiles, in a batch padded to 3


def test_batch_size_and_overlap_do_not_change_the_result_of_a_voxelwise_network():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 20, 20, 20)).astype(np.float32)
    brain = np.ones((20, 20, 20), bool)
    results = [
        segment_volume(stand_in(np.tanh), images, brain, Tiling((8, 8, 8), overlap, batch))
        for overlap, batch in ((0, 1), (4, 5), (6, 3))
    ]
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
    np.testing.assert_allclose(results[0], results[2], atol=1e-6)


@pytest.mark.parametrize(("target_set", "maps"), [("raters", 1), ("changes", 3)])
def test_all_maps_of_changes_but_only_the_consensus_of_raters_are_kept(
    small_config, target_set, maps
):
    small_config.model.targets, small_config.model.target_set = 3, target_set
    model = build_model(small_config)
    assert model.settings.predicted_maps == maps
    variables = with_random_output(initial_variables(model, seed=0))
    visits = np.random.default_rng(0).normal(size=(2, 2, 8, 8, 8, 1)).astype(np.float32)
    whole = np.asarray(model.apply(variables, *visits, train=False))
    kept = np.asarray(compile_forward(model, maps)(variables, *visits))
    assert kept.shape == (2, maps, 8, 8, 8)
    for number in range(maps):
        np.testing.assert_allclose(kept[:, number], whole[..., number], atol=1e-6)
    assert np.abs(whole[..., 0] - whole[..., 1]).max() > 1e-3


def test_threshold_is_exclusive_and_small_lesions_are_removed_by_volume():
    probability = np.zeros((6, 6, 6), np.float32)
    probability[0, 0, :] = 0.6
    probability[2:4, 2:4, 2:4] = 0.61  # 8 voxels
    probability[5, 5, 5] = 0.9
    probability[4, 4, 4] = 0.9  # touches the cube and the corner voxel only at corners
    options = Options(overlap=0, threshold=0.6, min_lesion_mm3=0.0, batch_size=1)
    assert lesion_mask(probability, options, volume_mm3=0.5).sum() == 10
    large = Options(overlap=0, threshold=0.6, min_lesion_mm3=4.0, batch_size=1)
    kept = lesion_mask(probability, large, volume_mm3=0.5)
    assert kept.dtype == np.uint8
    assert kept.sum() == kept[2:4, 2:4, 2:4].sum() == 8


def test_mask_and_probability_have_the_grid_of_the_first_visit(pair_flags, tmp_path, capsys):
    assert predict([*pair_flags, f"--probability={tmp_path / 'p.nii.gz'}"]) == 0
    output = capsys.readouterr().out.splitlines()
    model = pair_flags[0].removeprefix("--model=")
    assert output[0] == f"weights: {model}, 1 network; for research, not for clinical use"
    visit = nib.load(pair_flags[2])
    mask, probability = nib.load(tmp_path / "new.nii.gz"), nib.load(tmp_path / "p.nii.gz")
    for image in (mask, probability):
        assert image.shape == SHAPE
        np.testing.assert_array_equal(image.affine, visit.affine)
        assert image.header.get_xyzt_units() == visit.header.get_xyzt_units()
        assert image.header["sform_code"] == visit.header["sform_code"]
    assert mask.get_data_dtype() == np.uint8
    assert probability.get_data_dtype() == np.float32
    brain = nib.load(pair_flags[5].split("=")[1]).get_fdata() == 1
    assert (probability.get_fdata()[~brain] == 0).all()
    assert 0 < probability.get_fdata()[brain].min() <= probability.get_fdata().max() < 1
    np.testing.assert_array_equal(mask.get_fdata() == 1, brain)  # threshold 0


def test_threshold_and_smallest_lesion_change_the_mask(pair_flags, tmp_path):
    predict([*pair_flags, f"--probability={tmp_path / 'p.nii.gz'}"])
    probability = nib.load(tmp_path / "p.nii.gz").get_fdata()
    threshold = float(np.median(probability[probability > 0]))
    assert predict([*pair_flags, f"--threshold={threshold}"]) == 0
    np.testing.assert_array_equal(
        nib.load(tmp_path / "new.nii.gz").get_fdata() == 1, probability > threshold
    )
    for flag in ("--min_lesion_mm3=1e6", "--min_peak=0.999999"):
        assert predict([*pair_flags, flag]) == 0
        assert nib.load(tmp_path / "new.nii.gz").get_fdata().sum() == 0


def test_a_single_tile_gives_the_output_of_the_network(run, patients_root):
    ensemble = Ensemble([run])
    (predictor,) = ensemble.members
    settings = predictor.preprocessing.settings
    patient = layout.find_patients(patients_root, 0)[0]
    pair = read_pair(patient)
    found = ensemble.segment(patient, pair, ensemble.options(tile=64)).probability

    resampled = preprocess.resample(patient, pair, settings)
    images = preprocess.apply(predictor.preprocessing, patient, resampled)
    sides = [-side % predictor.side_multiple for side in resampled.brain.shape]
    visits = np.pad(images, [(0, 0), *((0, side) for side in sides)])[:, None, ..., None]
    model = SiameseMPUNet(predictor.config.model)
    whole = np.asarray(model.apply(predictor._variables, *visits, train=False))[0, ..., 0]
    whole = whole[tuple(slice(side) for side in resampled.brain.shape)] * resampled.brain
    expected = resampled.to_file_grid(whole) * pair.brain
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected[pair.brain]) > 0.01
    small = ensemble.segment(patient, pair, ensemble.options()).probability
    assert np.abs(small - found).max() > 1e-4  # by default, tiles have borders in the brain


def test_the_report_lists_the_lesions_of_the_mask_first(pair_flags, tmp_path, capsys, caplog):
    page = tmp_path / "page.html"
    assert predict([*pair_flags, f"--report={page}"]) == 0
    html = page.read_text()
    printed = capsys.readouterr().out  # threshold 0: the whole brain is one lesion
    assert re.search(r"^report: .*page\.html \(1 lesion, \d+ mm3\), [\d.]+ s$", printed, re.M)
    assert html.index("<strong>1 new lesion</strong>") < html.index("<table>") < html.index("<svg")
    assert ", last checkpoint (step 4)" in html
    assert str(pair_flags[2]) in html
    # A brain of a few ml gives a warning on the terminal and in the report.
    assert "ml. Expected 800 to 2000 ml for an adult." in caplog.text
    assert "ml. Expected 800 to 2000 ml for an adult." in html
    assert predict([*pair_flags, f"--report={tmp_path / 'page.pdf'}"]) == 1
    assert "page.pdf: expected a name that ends in .html" in capsys.readouterr().err


def test_a_data_set_gives_a_folder_of_reports(run, patients_root, tmp_path):
    flags = [f"--model={run}", f"--dataset={patients_root}", f"--output={tmp_path / 'out'}"]
    assert predict([*flags, f"--report={tmp_path / 'pages'}"]) == 0
    pages = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert pages == [f"patient_{k}.html" for k in range(4)]


def test_the_network_is_compiled_once_for_pairs_of_any_size(run, patients_root, tmp_path):
    ensemble = Ensemble([run])
    options = ensemble.options()
    compiled = []  # compilations of the forward pass, including those of other tests
    for size in ((14, 15, 20), (17, 16, 14)):
        generator = np.random.default_rng(0)
        brain = np.zeros(size, bool)
        brain[1:-1, 1:-1, 1:-1] = True
        paths = [
            save_nifti(tmp_path / f"{k}.nii.gz", (generator.random(size) * brain).astype("f4"))
            for k in range(2)
        ]
        patient = layout.Patient("one", *paths, None)
        ensemble.segment(patient, read_pair(patient), options)
        compiled.append(ensemble.members[0]._forward._cache_size())
    assert compiled[0] == compiled[1]


def test_a_failing_patient_does_not_stop_the_others_and_is_listed_at_the_end(
    run, patients_root, tmp_path, capsys
):
    (patients_root / "patient_1" / layout.TIME02).unlink()
    flags = [f"--model={run}", f"--dataset={patients_root}", f"--output={tmp_path / 'out'}"]
    assert predict(flags) == 1
    written = sorted(p.name for p in (tmp_path / "out").glob("*.json"))
    assert written == ["patient_0.json", "patient_2.json", "patient_3.json"]
    error = capsys.readouterr().err
    assert "1 of 4 patients failed" in error
    assert "patient_1/flair_time02" in error


def test_finished_patients_are_skipped_without_overwrite(run, patients_root, tmp_path, capsys):
    flags = [f"--model={run}", f"--dataset={patients_root}", f"--output={tmp_path / 'out'}"]
    assert predict(flags) == 0
    (tmp_path / "out" / "patient_2.nii.gz").write_bytes(b"mine")
    assert predict(flags) == 0
    assert capsys.readouterr().out.count("mm3), done before\n") == 4
    assert (tmp_path / "out" / "patient_2.nii.gz").read_bytes() == b"mine"
    assert predict([*flags, "--overwrite"]) == 0
    assert nib.load(tmp_path / "out" / "patient_2.nii.gz").shape == SHAPE
    # Patients are predicted again if the probability map is still missing.
    assert predict([*flags, f"--probability={tmp_path / 'maps'}"]) == 0
    assert len(list((tmp_path / "maps").iterdir())) == 4


def test_visits_on_different_grids_are_refused_and_nothing_is_written(pair_flags, tmp_path, capsys):
    save_nifti(tmp_path / "other.nii.gz", np.ones((5, 15, 20), np.float32))
    pair_flags[4] = str(tmp_path / "other.nii.gz")
    assert predict(pair_flags) == 1
    error = capsys.readouterr().err
    assert "other.nii.gz has (5, 15, 20) voxels" in error
    assert "`msseg predict --prepare`" in error
    assert not (tmp_path / "new.nii.gz").exists()


@pytest.fixture
def no_network(monkeypatch):
    """Fail if a network is loaded."""

    def never(*_):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(prediction, "Ensemble", never)


def _another_grid(path):
    save_nifti(path, np.ones((5, 15, 20), np.float32))


def _no_background(path):
    save_nifti(path, np.random.default_rng(1).random(SHAPE).astype(np.float32) + 1)


def _voxels_of_a_kilometre(path):
    save_nifti(path, np.ones(SHAPE, np.float32), 1e6 * np.array(SPACING_MM))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_another_grid, "has (5, 15, 20) voxels"),
        (_no_background, "the brain would be 100.0 % of the volume"),
        (_voxels_of_a_kilometre, "its field of view is 1.4e+07 x 1.5e+07 x 1.6e+07 mm"),
        (lambda path: path.write_text("no image"), "is not a readable NIfTI image"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_before_a_network_is_loaded(
    pair_flags, tmp_path, capsys, spoil, said
):
    spoil(tmp_path / "other.nii.gz")
    del pair_flags[5]  # the mask
    pair_flags[4] = str(tmp_path / "other.nii.gz")
    assert predict(pair_flags) == 1
    assert said in capsys.readouterr().err


def test_warnings_appear_before_the_network_is_applied(pair_flags, caplog, monkeypatch):
    warned = []

    def segment(*_):
        warned.extend(record.getMessage() for record in caplog.records)
        raise InputError("applied")

    monkeypatch.setattr(Predictor, "segment", segment)
    assert predict(pair_flags) == 1
    assert any("Expected 800 to 2000 ml for an adult." in warning for warning in warned)


def test_each_warning_is_given_once(pair_flags, tmp_path, capsys, caplog):
    visit = tmp_path / "two_geometries.nii.gz"
    image = nib.load(pair_flags[2])
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    image.header["qoffset_x"] += 15
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), visit)
    pair_flags[2] = str(visit)
    assert predict(pair_flags) == 0
    logged = "".join(f"{record.getMessage()}\n" for record in caplog.records)
    said = logged + capsys.readouterr().out
    assert said.count("Expected 800 to 2000 ml for an adult.") == 1
    assert said.count(f"{visit}: qform and sform") == 1, said


@pytest.mark.usefixtures("no_network")
def test_missing_scans_and_folders_are_refused_before_any_work(pair_flags, tmp_path, capsys):
    pair_flags[2], pair_flags[4] = str(tmp_path / "first.nii.gz"), str(tmp_path / "second.nii.gz")
    assert predict(pair_flags) == 1
    assert f"{pair_flags[2]}, {pair_flags[4]}: no such file or folder" in capsys.readouterr().err
    (tmp_path / "first.nii.gz").touch()
    (tmp_path / "second.nii.gz").mkdir()
    assert predict(pair_flags) == 1
    error = capsys.readouterr().err
    assert f"{pair_flags[4]}: is a folder. Expected a NIfTI file" in error
    assert "add --prepare, which" in error


def test_a_folder_without_a_model_is_refused(pair_flags, tmp_path, capsys):
    pair_flags[0] = f"--model={tmp_path}"
    assert predict(pair_flags) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}: this folder does not contain a trained run" in error
    assert "--model and config.init expect 'weights'" in error
    pair_flags[0] = f"--model={tmp_path / 'nope'}"
    assert predict(pair_flags) == 1
    assert "nope: no such file or folder. --model and config.init expect" in capsys.readouterr().err


def test_an_output_that_is_an_input_is_refused(pair_flags, capsys):
    pair_flags[-1] = pair_flags[2]
    assert predict(pair_flags) == 1
    assert "is an input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--probability={out}", "the same as --output; expected different paths"),
        ("--overlap=8", "overlap is 8; expected 0 to 7 voxels"),
        ("--tile=4", "tile is 4; expected 8 (the model's patch size) or more"),
        (
            "--tile=9",
            "tile is 9; expected 8 (the model's patch size) or more, and a multiple of 2",
        ),
        ("--output={root}/masks", "lies among the patients of --dataset"),
        ("--output={root}/masks/demo", "lies among the patients of --dataset"),
        ("--output={file}/masks", "cannot be written"),
        ("--output={root}/../x.nii.gz", "with --dataset a folder is expected"),
    ],
)
def test_errors_that_concern_all_patients_are_reported_before_the_first(
    run, patients_root, tmp_path, capsys, extra, message
):
    (tmp_path / "file").write_text("")
    out = tmp_path / "out"
    extra = extra.format(out=out, root=patients_root, file=tmp_path / "file")
    output = [] if extra.startswith("--output") else [f"--output={out}"]
    assert predict([f"--model={run}", f"--dataset={patients_root}", *output, extra]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("patient_0.nii.gz"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-t1", "a.nii"], "expected -t1 and -t2"),
        (["--dataset=d", "-t1", "a.nii"], "--dataset excludes -t1, -t2 and --mask"),
        (
            ["--dataset=d", "--threshold=1.5"],
            "--threshold: 1.5 is out of range. Expected a number, 0 or more and less than 1",
        ),
        (
            ["--dataset=d", "--batch_size=0"],
            "--batch_size: 0 is out of range. Expected a whole number, 1 or",
        ),
        (
            ["--dataset=d", "--threads=0"],
            "--threads: 0 is out of range. Expected a whole number, 1 or more",
        ),
    ],
)
def test_wrong_flags_exit_with_2(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        predict(["--model=m", "-o", "o.nii.gz", *flags])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_pairs_on_a_common_grid_import_no_library_for_preparing_or_training():
    slow = "{'SimpleITK', 'orbax', 'orbax.checkpoint'}"
    code = f"import sys, msseg_jax.cli.predict; print({slow} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_the_best_checkpoint_is_preferred_to_the_last(run, small_config):
    (network,) = trained_networks(run)
    assert network.kind == "last"
    variables = initial_variables(build_model(small_config), seed=1)
    with Checkpoints(run / "checkpoints" / "best", keep=1) as checkpoints:
        checkpoints.save(2, variables, {"moments": np.zeros(1)}, Progress())
    (network,) = trained_networks(run)
    assert (network.kind, network.step) == ("best", 2)
    jax.tree.map(np.testing.assert_array_equal, network.variables, variables)


def test_a_report_without_a_name_is_written_next_to_the_mask(pair_flags, tmp_path):
    assert predict([*pair_flags, "--report"]) == 0
    assert "new lesion" in (tmp_path / "new.html").read_text()


def test_reports_of_a_folder_without_a_name_are_written_next_to_the_masks(
    run, patients_root, tmp_path
):
    output = tmp_path / "masks"
    flags = [f"--model={run}", f"--dataset={patients_root}", "--report", f"--output={output}"]
    assert predict(flags) == 0
    names = {path.name for path in output.iterdir()}
    assert {"patient_0.nii.gz", "patient_0.html"} <= names


@pytest.mark.parametrize("name", ["time01.nii.gz", "FLAIR_time01_scan.nii", "Time01"])
def test_raw_scans_in_a_folder_are_recognised_and_the_advice_is_prepare(
    run, tmp_path, capsys, name
):
    folder = tmp_path / "scans" / "anna"
    folder.mkdir(parents=True)
    (folder / name).touch()
    flags = [f"--model={run}", f"--dataset={tmp_path / 'scans'}", f"--output={tmp_path / 'masks'}"]
    assert predict(flags) == 1
    message = capsys.readouterr().err
    assert f"raw scans, such as {name}" in message
    assert "add --prepare" in message
    assert not (tmp_path / "masks").exists()
