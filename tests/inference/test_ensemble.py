"""Ensembles: mean and disagreement of several networks, their options, and their outputs."""

import jax
import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli.main import main
from msseg_jax.data.preprocess import resample
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.models.folds import Folds
from msseg_jax.system.errors import InputError
from msseg_jax.volumes import layout
from msseg_jax.volumes.pair import read_pair
from tests.support.patients import SHAPE
from tests.support.runs import models, save_run


def predict(flags):
    return main(["predict", *flags])


def read(path):
    return np.asarray(nib.load(path).dataobj)


def test_the_outputs_are_the_mean_and_deviation_of_the_maps_of_the_members(
    runs, flags, tmp_path, capsys
):
    single = []
    for run in runs:
        path = tmp_path / f"{run.name}.nii.gz"
        assert predict([f"--model={run}", *flags, f"--probability={path}"]) == 0
        single.append(read(path))
    mean, apart = tmp_path / "mean.nii.gz", tmp_path / "apart.nii.gz"
    capsys.readouterr()
    together = [*models(runs), *flags, f"--probability={mean}", f"--uncertainty={apart}"]
    assert predict(together) == 0
    names = " + ".join(map(str, runs))
    assert capsys.readouterr().out.splitlines()[0] == (
        f"weights: {names}, 3 networks; for research, not for clinical use"
    )

    np.testing.assert_allclose(read(mean), np.mean(single, axis=0), atol=1e-6)
    np.testing.assert_allclose(read(apart), np.std(single, axis=0), atol=1e-6)
    assert read(apart).max() > 0.01
    np.testing.assert_array_equal(read(tmp_path / "new.nii.gz"), read(mean) > np.float32(0.3))
    visit, image = nib.load(flags[1]), nib.load(apart)
    assert image.get_data_dtype() == np.float32
    assert image.shape == SHAPE
    np.testing.assert_array_equal(image.affine, visit.affine)
    assert (read(apart)[read(flags[4].split("=")[1]) == 0] == 0).all()


def test_an_ensemble_of_one_run_gives_the_map_of_that_run(runs, patients_root):
    ensemble = Ensemble(runs[:1])
    (member,) = ensemble.members
    patient = layout.find_patients(patients_root, 0)[0]
    pair = read_pair(patient)
    found = ensemble.segment(patient, pair, ensemble.options())
    resampled = resample(patient, pair, member.preprocessing.settings)
    (expected,) = member.segment(patient, pair, resampled, member.options)
    np.testing.assert_array_equal(found.probability, expected)
    assert np.ptp(expected) > 0.01
    assert (found.disagreement == 0).all()


def test_networks_with_the_same_layers_are_compiled_once(runs):
    first, second, third = Ensemble(runs).members
    assert first._forward is second._forward is third._forward
    one, other = (jax.tree.leaves(member._variables) for member in (first, second))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_a_warning_of_several_members_is_given_once(runs, flags, patients_root):
    ensemble = Ensemble(runs)
    patient = layout.find_patients(patients_root, 0)[0]
    pair = read_pair(patient)
    found = ensemble.segment(patient, pair, ensemble.options())
    warnings = found.quality.warnings()
    assert sum("first visit's intensities" in warning for warning in warnings) == 1
    single = [
        Ensemble([run]).segment(patient, pair, ensemble.options()).quality.deviations[0]
        for run in runs
    ]
    assert found.quality.deviations[0] == max(single)  # all three have the same bound


def test_options_that_are_not_given_are_those_of_the_first_run(runs, small_config, tmp_path):
    small_config.predict.overlap = 3
    small_config.predict.batch_size = 7
    other = save_run(tmp_path / "other", small_config)
    options = Ensemble([*runs, other]).options(batch_size=None)
    assert (options.threshold, options.overlap, options.batch_size) == (0.3, 2, 4)
    assert Ensemble([other, *runs]).options(batch_size=5).overlap == 3
    assert Ensemble([other, *runs]).options(batch_size=5).batch_size == 5


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", 0.5), ("min_lesion_mm3", 3.0), ("min_peak", 0.7)]
)
def test_different_options_for_the_mean_are_refused_unless_one_is_given(
    runs, small_config, tmp_path, name, value
):
    first = small_config.predict[name]
    small_config.predict[name] = value
    ensemble = Ensemble([*runs, save_run(tmp_path / "other", small_config)])
    message = f"^{name}: .*one has {first:g}, .*other has {value:g}. .*Give a value for {name}"
    with pytest.raises(InputError, match=message):
        ensemble.options()
    assert getattr(ensemble.options(**{name: value}), name) == value


def test_tiles_must_be_valid_for_every_member(runs, small_config, tmp_path):
    small_config.data.patch_size = 4
    ensemble = Ensemble([*runs, save_run(tmp_path / "small", small_config)])
    with pytest.raises(InputError, match=r"overlap is 4; expected 0 to 3 voxels.*small"):
        ensemble.options(overlap=4)
    with pytest.raises(InputError, match=r"tile is 4; expected 8 .*one"):
        ensemble.options(tile=4)


def test_the_folder_of_a_cross_validation_is_the_ensemble_of_its_folds(
    small_config, flags, tmp_path, capsys
):
    folds = Folds(tmp_path / "cv")
    for fold in range(2):
        save_run(folds.run(fold), small_config, seed=fold)
    folds.save([["patient_0"], ["patient_1"]])
    apart, page = tmp_path / "apart.nii.gz", tmp_path / "page.html"
    outputs = [f"--uncertainty={apart}", f"--report={page}"]
    assert predict([f"--model={folds.path}", *flags, *outputs]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"weights: {folds.path}, 2 networks; for research, not for clinical use"
    html = page.read_text()
    for fold in range(2):
        assert f"{folds.run(fold)}, last checkpoint (step 4)" in html
    assert "mean of the 2 models" in html
    assert read(apart).max() > 0.01


def test_patients_are_skipped_only_if_every_requested_output_exists(
    runs, patients_root, tmp_path, capsys
):
    flags = [*models(runs[:2]), f"--dataset={patients_root}", f"--output={tmp_path / 'out'}"]
    assert predict(flags) == 0
    flags.append(f"--uncertainty={tmp_path / 'apart'}")
    assert predict(flags) == 0  # not skipped, because these maps were not requested before
    names = [f"patient_{k}.nii.gz" for k in range(4)]
    assert sorted(path.name for path in (tmp_path / "apart").iterdir()) == names
    (tmp_path / "apart" / names[2]).unlink()
    capsys.readouterr()
    assert predict(flags) == 0
    output = capsys.readouterr().out
    assert output.count("mm3), done before\n") == 3
    assert "(4 patients, 3 done before)" in output
    assert (tmp_path / "apart" / names[2]).is_file()


@pytest.mark.parametrize(
    ("take", "extra", "message"),
    [
        (1, "--uncertainty={out}", "is only one network. Expected several"),
        (2, "--uncertainty={new}", "the same as --output; expected different paths"),
        (2, "--model={first}", "one: this model is given twice. Give each model only once."),
        (2, "--uncertainty={page}", "expected a name that ends in .nii"),
    ],
)
def test_invalid_flags_for_an_ensemble_are_refused(
    runs, flags, tmp_path, capsys, take, extra, message
):
    out, page = tmp_path / "apart.nii.gz", tmp_path / "apart.html"
    extra = extra.format(out=out, new=tmp_path / "new.nii.gz", first=runs[0], page=page)
    assert predict([*models(runs[:take]), *flags, extra]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.nii.gz"))
