"""The functions that `msseg_jax` exports give what the commands give."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import msseg_jax
from msseg_jax.cli.main import main
from msseg_jax.prepare import libraries
from msseg_jax.prepare import patient as patient_module
from msseg_jax.volumes import layout
from tests.support import heads
from tests.support.runs import save_run


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def run(small_config, tmp_path):
    """Return the folder of a run with an untrained network that finds about half of the brain."""
    small_config.predict.threshold = 0.5
    return save_run(tmp_path / "run", small_config)


@pytest.fixture
def pair(patients_root):
    """Return the paths of both visits and of the brain mask of a patient."""
    folder = patients_root / "patient_0"
    return tuple(folder / name for name in (layout.TIME01, layout.TIME02, layout.BRAIN_MASK))


def test_paths_images_and_arrays_give_the_mask_and_the_map_of_the_command(run, pair, tmp_path):
    mask, probability = tmp_path / "mask.nii.gz", tmp_path / "probability.nii.gz"
    flags = [f"--model={run}", f"--probability={probability}", "-o", str(mask)]
    visits = ["-t1", str(pair[0]), "-t2", str(pair[1]), f"--mask={pair[2]}"]
    assert main(["predict", *flags, *visits]) == 0
    assert 0 < voxels(mask).sum() < voxels(pair[2]).sum()

    images = [nib.load(path) for path in pair]
    arrays = [voxels(path) for path in pair]
    affine = images[0].affine
    mixed = (str(pair[0]), images[1], arrays[2] != 0)
    for given, more in ((pair, {}), (images, {}), (arrays, {"affine": affine}),
                        (mixed, {"affine": affine})):  # fmt: skip
        found = msseg_jax.find_new_lesions(*given, model=run, **more)
        np.testing.assert_array_equal(found.mask, voxels(mask))
        np.testing.assert_array_equal(found.probability, voxels(probability))
        np.testing.assert_array_equal(found.affine, affine)


def test_options_replace_those_of_the_model(run, pair):
    model = msseg_jax.load_model(run)
    found = msseg_jax.find_new_lesions(*pair, model=model)
    everything = msseg_jax.find_new_lesions(*pair, model=model, threshold=0.0)
    np.testing.assert_array_equal(everything.mask, voxels(pair[2]) != 0)
    largest = found.lesions.volume_mm3.iloc[0]
    only = msseg_jax.find_new_lesions(*pair, model=model, min_lesion_mm3=largest)
    assert only.lesions.volume_mm3.min() == largest
    with pytest.raises(msseg_jax.InputError, match="threshold is 2"):
        msseg_jax.find_new_lesions(*pair, model=model, threshold=2)


def test_the_table_lists_the_lesions_of_the_mask(run, pair):
    model = msseg_jax.load_model(run)
    probability = msseg_jax.find_new_lesions(*pair, model=model).probability
    threshold = float(np.quantile(probability[voxels(pair[2]) != 0], 0.95))  # several lesions
    found = msseg_jax.find_new_lesions(*pair, model=model, threshold=threshold)
    table = found.lesions
    assert isinstance(table, pd.DataFrame)
    assert list(table) == ["lesion", "volume_mm3", "x_mm", "y_mm", "z_mm", "mean_probability"]
    voxel_mm3 = abs(np.linalg.det(found.affine))
    np.testing.assert_allclose(table.volume_mm3.sum(), found.mask.sum() * voxel_mm3, rtol=1e-5)
    assert table.volume_mm3.is_monotonic_decreasing
    assert (table.mean_probability > threshold).all()
    assert len(table) > 1
    assert str(found).startswith(f"{len(table)} new lesions, ")


def test_without_lesions_the_table_is_empty_and_has_its_columns(run, pair):
    found = msseg_jax.find_new_lesions(*pair, model=run, threshold=0.999)
    assert found.mask.sum() == 0
    assert len(found.lesions) == 0
    assert "volume_mm3" in found.lesions
    assert str(found) == "0 new lesions, 0 mm3"


def test_save_writes_what_it_is_asked_for_and_never_replaces_an_input(run, pair, tmp_path):
    found = msseg_jax.find_new_lesions(*pair, model=run)
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("mask", "probability", "uncertainty")}
    found.save(files["mask"])
    assert [file.is_file() for file in files.values()] == [True, False, False]
    found.save(**files, report=tmp_path / "report.html")
    np.testing.assert_array_equal(voxels(files["mask"]), found.mask)
    np.testing.assert_array_equal(voxels(files["probability"]), found.probability)
    np.testing.assert_array_equal(voxels(files["uncertainty"]), found.uncertainty)
    assert "new lesion" in (tmp_path / "report.html").read_text()
    with pytest.raises(msseg_jax.InputError, match="is an input"):
        found.save(pair[1])


def test_images_that_cannot_be_used_are_all_named(run, pair):
    image = voxels(pair[0])
    with pytest.raises(msseg_jax.InputError) as missing:
        msseg_jax.find_new_lesions(image, pair[1], model=run)
    assert "time01 is an array, and its affine is missing" in str(missing.value)
    with pytest.raises(msseg_jax.InputError) as several:
        msseg_jax.find_new_lesions(
            image * np.nan, image[1:], voxels(pair[2]), affine=np.diag([2.0, 1, 1, 1]), model=run
        )
    assert "time01: " in str(several.value)
    assert "NaN or infinite" in str(several.value)


def test_the_released_weights_are_the_default_and_are_loaded_once(pair, monkeypatch):
    from msseg_jax.api import findings

    loaded = []
    monkeypatch.setattr(findings, "load_model", lambda *models: loaded.append(models) or "model")
    findings._released.cache_clear()
    assert [findings.as_model(None), findings.as_model(None)] == ["model", "model"]
    assert loaded == [()]
    findings._released.cache_clear()
    monkeypatch.undo()
    assert len(msseg_jax.load_model().members) == 2


def test_a_mask_is_scored_as_evaluate_scores_it(patients_root, tmp_path, capsys):
    rng = np.random.default_rng(0)
    reference_file = patients_root / "patient_0" / layout.CONSENSUS
    reference = nib.load(reference_file)
    changed = voxels(reference_file).astype(np.uint8)
    changed[rng.random(changed.shape) < 0.02] ^= 1
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    prediction = nib.Nifti1Image(changed, reference.affine, reference.header)
    nib.save(prediction, predictions / "patient_0.nii.gz")
    out = tmp_path / "out"
    flags = [f"--reference={patients_root}", f"--prediction={predictions}", f"--output={out}"]
    main(["evaluate", *flags, "--no_report"])
    table = pd.read_csv(out / "scores.csv")
    (row,) = table[(table.rater == "prediction") & (table.reference == "consensus")].to_dict(
        "records"
    )
    affine = np.diag([*reference.header.get_zooms(), 1.0])
    for scores in (
        msseg_jax.score_mask(predictions / "patient_0.nii.gz", reference_file),
        msseg_jax.score_mask(prediction, reference),
        msseg_jax.score_mask(changed, voxels(reference_file), affine=affine),
    ):
        for name in scores:
            if name != "group":
                np.testing.assert_allclose(scores[name], row[name], rtol=1e-9, err_msg=name)
        assert 0 < scores["Dice"] < 1


def test_masks_on_two_grids_and_masks_with_other_values_are_refused(patients_root):
    mask = voxels(patients_root / "patient_0" / layout.CONSENSUS)
    with pytest.raises(msseg_jax.InputError) as error:
        msseg_jax.score_mask(2 * mask, mask[1:], affine=np.eye(4))
    assert "prediction" in str(error.value)
    assert "0 and 1" in str(error.value)
    assert "Expected one grid for both" in str(error.value)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Return a folder with two scans of an artificial head."""
    return heads.write_heads(tmp_path_factory.mktemp("scans"))


def test_scans_are_prepared_and_their_lesions_lie_on_the_grid_of_the_second(
    small_config, scans, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(patient_module, "register_visits", heads.known_registration(scans))
    small_config.data.spacing_mm = 4.0
    small_config.predict.threshold = 0.5
    run = save_run(tmp_path / "run", small_config)
    visits = scans / "time01.nii.gz", scans / "time02.nii.gz"
    steps: list[str] = []
    pair = msseg_jax.prepare_scans(*visits, tmp_path / "anna", progress=steps.append)
    assert steps[0] == "reading"
    assert all(file.is_file() for file in (pair.time01, pair.time02, pair.brain_mask, pair.picture))
    found = pair.find_new_lesions(run)
    found.save(tmp_path / "api.nii.gz")

    flags = ["-t1", str(visits[0]), "-t2", str(visits[1]), f"--prepare={tmp_path / 'anna'}"]
    assert main(["predict", *flags, f"--model={run}", "-o", str(tmp_path / "command.nii.gz")]) == 0
    assert "prepared before" in capsys.readouterr().out
    np.testing.assert_array_equal(found.mask, voxels(tmp_path / "command.nii.gz"))
    np.testing.assert_array_equal(voxels(tmp_path / "api.nii.gz"), found.mask)
    assert found.mask.shape == nib.load(visits[1]).shape
    assert 0 < found.mask.sum() < found.mask.size
    assert set(pair.warnings) <= set(found.warnings)


def test_missing_libraries_for_scans_are_named(monkeypatch):
    monkeypatch.setattr(libraries, "LIBRARIES", ("no_such_library",))
    with pytest.raises(msseg_jax.InputError, match=r"no_such_library.*pip install"):
        msseg_jax.prepare_scans  # noqa: B018


def test_importing_msseg_jax_imports_nothing_heavy_and_unknown_names_are_reported():
    code = "import sys, msseg_jax; print(sorted({'jax', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(msseg_jax.__all__) <= set(dir(msseg_jax))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        msseg_jax.nonsense  # noqa: B018
